from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rayspec.distill.score import Scores, score, top_k
from rayspec.distill.student import load
from rayspec.distill.texts import Text, Texts
from tests.support.distilling import build_target

CPU = torch.device("cpu")


@pytest.mark.parametrize(("vocabulary", "k"), [(4096, 16), (100, 5), (256, 4), (256, 8), (6, 9)])
def test_top_k(vocabulary: int, k: int) -> None:
    torch.manual_seed(0)
    logits = torch.randn(7, vocabulary)
    values, ids = top_k(logits, k)
    expected = logits.log_softmax(-1).topk(min(k, vocabulary))
    assert torch.equal(ids, expected.indices)
    assert torch.allclose(values, expected.values, atol=1e-6)


def test_scores_are_the_targets(tmp_path: Path) -> None:
    target = load(build_target(tmp_path / "target"), torch.float32, CPU)
    texts = Texts.of([Text([5, 6, 7], [8, 9], "a"), Text([9], [10, 11, 12, 13], "b")])
    told: list[int] = []
    folder = tmp_path / "scores"
    found = score(target, texts, 6, folder, budget=8, progress=told.append)
    assert told[-1] == texts.answer_tokens == 6
    with torch.inference_mode():
        logits = [target(torch.tensor([ids])).logits[0] for ids in ([5, 6, 7, 8], [9, 10, 11, 12])]
    expected = torch.cat([logits[0][2:], logits[1]]).log_softmax(-1).topk(6)
    for scores in (found, Scores.load(folder)):
        ids, logp = scores.rows(torch.arange(6).numpy(), CPU)
        assert torch.equal(ids, expected.indices)
        assert torch.allclose(logp, expected.values, atol=5e-3)  # stored in 16 bits


def test_ids_beyond_the_sign_bit(tmp_path: Path) -> None:
    scores = Scores.empty(tmp_path, 2, 2, 49152)
    scores.ids[:] = torch.tensor([[49151, 32768], [32767, 0]]).to(torch.int16)
    ids, _ = scores.rows(torch.tensor([1, 0]).numpy(), CPU)
    assert ids.tolist() == [[32767, 0], [49151, 32768]]
    wide = Scores.empty(tmp_path, 1, 1, 128256)
    wide.ids[:] = 128255
    assert wide.rows(torch.tensor([0]).numpy(), CPU)[0].tolist() == [[128255]]
