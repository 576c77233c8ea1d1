"""Two-sample tests of sampled answers: whether two lanes draw from one distribution.

An answer is a row of tokens. Two statistics look at it: which token stands at each position, and
which pairs of tokens follow each other anywhere. Both are sums of Pearson's χ² over categories.
Tokens of one answer depend on each other, so no table gives the distribution of such a sum; it is
found by shuffling which lane gave which whole answer, which is exact for any number of samples.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ENDED",
    "Features",
    "Result",
    "Rows",
    "holm",
    "pairs",
    "positions",
    "statistic",
    "two_sample",
]

ENDED = -1
"""Stands where an answer had already ended."""

# A token that both lanes together have seen less often says little by itself; such are pooled.
_RARE = 10
SHUFFLES = 9999
# p-values are at least so many times finer than the level that they are held against.
_FINER = 10
_CHUNK = 1000
_POOLED = ("rare",)

Counts = NDArray[np.float32]
Rows = Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True)
class Features:
    """How often each category occurs in each answer.

    `groups` tells the position that a category belongs to; all 0 where it belongs to none.
    """

    counts: Counts  # [answers, categories]
    names: tuple[tuple[Hashable, ...], ...]
    groups: NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Result:
    """What one test found; `critical` is what the statistic exceeds with probability `alpha`.

    `by_group` holds the p-value of each position by itself, to see where a difference is; these are
    not corrected for their number. `most` is the category that contributes most, with its mean
    number per answer in the first and in the second sample.
    """

    statistic: float
    p: float
    critical: float
    by_group: tuple[float, ...]
    most: tuple[Hashable, ...]
    shares: tuple[float, float]


def positions(rows: Rows, length: int) -> Features:
    """Return which token each answer has at each of the first `length` positions."""
    padded = [[*row[:length], *[ENDED] * (length - len(row))] for row in rows]
    return _features([[(at, token) for at, token in enumerate(row)] for row in padded], length)


def pairs(rows: Rows, length: int) -> Features:
    """Return which tokens follow which others within the first `length` of each answer."""
    ended = [[*row, ENDED][:length] for row in rows]
    return _features([[(0, *pair) for pair in itertools.pairwise(row)] for row in ended], 1)


def two_sample(
    features: Features, first: int, *, alpha: float, seed: int = 0, shuffles: int = SHUFFLES
) -> Result:
    """Compare the `first` answers with the rest.

    `alpha` is the level of this one test, corrected for others; it sets what `critical` reports,
    and the least number of shuffles.
    """
    shuffles = max(shuffles, math.ceil(_FINER / alpha) - 1)
    counts, groups = features.counts, features.groups
    answers = len(counts)
    labels = np.zeros(answers, dtype=np.float32)
    labels[:first] = 1
    weights = _weights(counts.sum(0), first / answers)
    member = (groups[:, None] == np.arange(groups.max() + 1)).astype(np.float64)  # [C, groups]
    share = first / answers
    parts = _squares(labels[None] @ counts, counts.sum(0), share) * weights  # [1, C]
    seen = np.append(parts @ member, parts.sum())

    random = np.random.default_rng(seed)
    null = []
    for begin in range(0, shuffles, _CHUNK):
        tiled = np.tile(labels, (min(_CHUNK, shuffles - begin), 1))
        shuffled = random.permuted(tiled, axis=1) @ counts
        squares = _squares(shuffled, counts.sum(0), share) * weights
        null.append(np.column_stack([squares @ member, squares.sum(1)]))
    drawn = np.concatenate(null)  # [shuffles, groups + 1]
    # Equal but for the order of summation is equal.
    reached = (drawn >= seen * (1 - 1e-9) - 1e-9).sum(0)
    p = (1 + reached) / (shuffles + 1)
    most = int(parts[0].argmax())
    means = counts[:first, most].mean(), counts[first:, most].mean()
    return Result(
        statistic=float(seen[-1]),
        p=float(p[-1]),
        critical=float(np.quantile(drawn[:, -1], 1 - alpha, method="higher")),
        by_group=tuple(float(value) for value in p[:-1]),
        most=features.names[most],
        shares=(float(means[0]), float(means[1])),
    )


def statistic(first: Counts, second: Counts, share: float) -> NDArray[np.float64]:
    """Return the statistic of category counts, [..., C], of a sample of `share` and its rest."""
    totals = first + second
    summed: NDArray[np.float64] = (_squares(first, totals, share) * _weights(totals, share)).sum(-1)
    return summed


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values: rejecting those up to α keeps the chance of any error ≤ α.

    https://www.jstor.org/stable/4615733
    """
    adjusted = [0.0] * len(p_values)
    worst = 0.0
    for rank, at in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[at]))
        adjusted[at] = worst
    return adjusted


def _squares(first: Counts, totals: Counts, share: float) -> NDArray[np.float64]:
    difference: NDArray[np.float64] = first.astype(np.float64) - share * totals.astype(np.float64)
    return difference**2


def _weights(totals: Counts, share: float) -> NDArray[np.float64]:
    # The sum of (observed − expected)² ÷ expected over both samples, expected = share · total.
    return 1.0 / (share * (1 - share) * np.maximum(totals, 1).astype(np.float64))


def _features(events: Iterable[list[tuple[int, ...]]], groups: int) -> Features:
    rows = list(events)
    often = Counter(event for row in rows for event in row)
    kept = {event for event, count in often.items() if count >= _RARE}

    def category(event: tuple[int, ...]) -> tuple[Hashable, ...]:
        return event if event in kept else (event[0], *_POOLED)

    names = tuple(sorted({category(event) for event in often}, key=repr))
    column = {name: at for at, name in enumerate(names)}
    counts = np.zeros((len(rows), len(names)), dtype=np.float32)
    for at, row in enumerate(rows):
        for event in row:
            counts[at, column[category(event)]] += 1
    return Features(counts, names, np.array([name[0] for name in names], dtype=np.intp))
