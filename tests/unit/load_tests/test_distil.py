"""A draft in a grown shape is loaded like a grown model once it was trained."""

from __future__ import annotations

from pathlib import Path

import torch

from load_tests.distil import describe, untrained
from load_tests.growth import GrownModel, Shape
from load_tests.growth.shapes import Dims
from tests.unit.load_tests.test_growth import SMALL, build, logits

CUT = Shape(
    Dims(48, 2, SMALL.heads, SMALL.kv_heads, SMALL.head_dim, 80, SMALL.tied), "test", ((0,), (2,))
)


def test_a_trained_draft_grows_from_itself(tmp_path: Path) -> None:
    source, out = build(tmp_path / "source", SMALL), tmp_path / "out"
    draft = untrained(source, CUT)
    with torch.no_grad():
        for weight in draft.parameters():
            weight += 0.02 * torch.randn_like(weight)
    draft.to(torch.bfloat16).save_pretrained(out)
    trained = logits(out, torch.bfloat16)
    describe(out, source, CUT)
    assert torch.equal(logits(out, torch.bfloat16), trained)
    regrown = GrownModel.read(out).write(tmp_path / "regrown", torch.bfloat16)
    assert torch.equal(logits(regrown, torch.bfloat16), trained)
