from __future__ import annotations

import math

import pytest
import torch

from rayspec.distill.loss import ChosenLogProbs, divergence
from rayspec.distill.spec import LossKind

KINDS: tuple[LossKind, ...] = ("kl", "reverse-kl", "tv")


def distributions(n: int = 6, vocabulary: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    logits = torch.randn(2, n, vocabulary, dtype=torch.float64)
    p, q = logits.log_softmax(-1)
    return p, q


def whole(p: torch.Tensor, q: torch.Tensor, kind: LossKind) -> float:
    match kind:
        case "kl":
            each = p.exp() * (p - q)
        case "reverse-kl":
            each = q.exp() * (q - p)
        case "tv":
            each = 0.5 * (p.exp() - q.exp()).abs()
    return float(each.sum(-1).mean())


@pytest.mark.parametrize("kind", KINDS)
def test_is_the_divergence_where_everything_is_stored(kind: LossKind) -> None:
    p, q = distributions()
    assert float(divergence(p, q, kind)) == pytest.approx(whole(p, q, kind), abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_is_a_lower_bound_that_grows_with_k(kind: LossKind) -> None:
    p, q = distributions()
    bounds = []
    for k in (1, 3, 6, 12):
        ids = p.topk(k).indices
        bounds.append(float(divergence(p.gather(1, ids), q.gather(1, ids), kind)))
    assert bounds == sorted(bounds)
    assert bounds[-1] == pytest.approx(whole(p, q, kind), abs=1e-5)
    assert bounds[0] < 0.9 * bounds[-1]


@pytest.mark.parametrize("kind", KINDS)
def test_is_nothing_between_equals_and_finite_at_extremes(kind: LossKind) -> None:
    p, _ = distributions()
    top = p.topk(4).values
    assert float(divergence(top, top, kind)) == pytest.approx(0, abs=1e-9)
    sure, unlikely = torch.tensor([[0.0]]), torch.tensor([[-80.0]])
    for one, other in ((sure, unlikely), (unlikely, sure)):
        assert math.isfinite(float(divergence(one, other, kind)))


@pytest.mark.parametrize("elements", [1 << 28, 25])
def test_chosen_log_probs_and_gradients(monkeypatch: pytest.MonkeyPatch, elements: int) -> None:
    monkeypatch.setattr("rayspec.distill.loss._ELEMENTS", elements)  # 25: two rows at a time
    torch.manual_seed(1)
    hidden = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(12, 4, dtype=torch.float64, requires_grad=True)
    ids = torch.stack([torch.randperm(12)[:3] for _ in range(5)])
    found = ChosenLogProbs.apply(hidden, weight, ids)
    expected = (hidden @ weight.T).log_softmax(-1).gather(1, ids)
    assert torch.allclose(found, expected)
    assert torch.autograd.gradcheck(lambda h, w: ChosenLogProbs.apply(h, w, ids), (hidden, weight))
