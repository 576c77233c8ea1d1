"""A student comes to predict what its teacher does, and is loaded like a grown model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from load_tests.distil import save
from load_tests.growth import GrownModel, Shape
from load_tests.growth.distil import Training, pack, train
from tests.unit.load_tests.test_growth import SMALL, VOCAB, build, logits

CUT = Shape(replace(SMALL, hidden=48, layers=2, intermediate=80), "test", ((0,), (2,)))


def test_training_and_loading(tmp_path: Path) -> None:
    source = build(tmp_path / "source", SMALL)
    teacher = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    start = GrownModel.of(source, CUT).write(tmp_path / "start", torch.float32)
    student = AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32)
    rows = torch.randint(VOCAB, (24, 16), generator=torch.Generator().manual_seed(1))
    training = Training(steps=20, batch=8, micro_batch=3, rate=1e-2, warm_up=5)
    losses = list(train(teacher, student, rows, training))
    assert len(losses) == 20
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])

    out = tmp_path / "out"
    save(student, source, CUT, out)
    trained = logits(out, torch.bfloat16)
    regrown = GrownModel.read(out).write(tmp_path / "regrown", torch.bfloat16)
    assert torch.equal(logits(regrown, torch.bfloat16), trained)


def test_pack() -> None:
    rows = pack([[1, 2, 3], [4], [5, 6, 7]], 3)
    assert rows.tolist() == [[1, 2, 3], [4, 5, 6]]
