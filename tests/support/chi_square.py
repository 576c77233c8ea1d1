"""A χ² test of tokens against the distribution that they should have."""

from __future__ import annotations

import math

import torch


def assert_distributed(tokens: torch.Tensor, expected: torch.Tensor) -> None:
    """Fail where tokens [n] would come from `expected` [V] less than once in 10 million draws."""
    counts = torch.bincount(tokens.cpu(), minlength=expected.shape[0]).double()
    expected = expected.cpu().double() * tokens.shape[0]
    assert counts[expected == 0].sum() == 0, "a token that has no probability"
    order = expected.argsort(descending=True)
    observed, hoped = _grouped(counts[order].tolist(), expected[order].tolist())
    freedom = len(hoped) - 1
    if freedom < 1:
        return
    statistic = sum((o - e) ** 2 / e for o, e in zip(observed, hoped, strict=True))
    # Wilson and Hilferty: the cube root of χ² / freedom is nearly normal.
    deviation = 2 / (9 * freedom)
    score = ((statistic / freedom) ** (1 / 3) - (1 - deviation)) / math.sqrt(deviation)
    assert score < 5.2, f"χ² is {statistic:.1f} with {freedom} degrees of freedom"


def _grouped(counts: list[float], expected: list[float]) -> tuple[list[float], list[float]]:
    """Pool the least likely, so that every group expects five or more."""
    observed: list[float] = []
    hoped: list[float] = []
    o = e = 0.0
    for count, hope in zip(counts, expected, strict=True):
        o, e = o + count, e + hope
        if e >= 5:
            observed.append(o)
            hoped.append(e)
            o = e = 0.0
    if hoped:
        observed[-1] += o
        hoped[-1] += e
    return observed, hoped
