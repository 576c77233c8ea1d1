"""What a step and a request cost in a lane: measured step times, and what follows from them.

A step verifies K draft tokens of every sequence and yields `expected_tokens`. Step times come from
measurements (a calibration, or an engine that learns its own), never from a formula: between the
measured batch sizes they are interpolated, because decoding is flat while it is bound by memory and
linear once it is bound by compute. All times are seconds. Pure: no clock, no I/O.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import ceil
from statistics import fmean, median

__all__ = [
    "Acceptance",
    "LaneCost",
    "Prediction",
    "PrefillTimes",
    "StepPoint",
    "StepTimes",
    "best_k",
    "breakeven_acceptance",
    "expected_tokens",
    "predict",
]

Acceptance = float | Sequence[float]
"""The probability that a draft token is accepted given that those before it were: one for all
positions, or one per position, whose last holds for all after it."""

_MAX_NEWTON = 20
# How much more another K than the longest has to promise.
_CLEARLY = 0.03


def expected_tokens(acceptance: Acceptance, k: int) -> float:
    """Return the mean tokens of a step with `k` draft tokens, 1 to k + 1.

    For a constant acceptance a this is (1 − a^(k+1)) / (1 − a) (Leviathan et al. 2023, eq. 1).
    """
    return _expected_tokens(acceptance, k)[k]


def _expected_tokens(acceptance: Acceptance, k: int) -> list[float]:
    """Return the mean tokens of steps with 0 to `k` draft tokens."""
    if isinstance(acceptance, int | float):
        acceptance = (acceptance,)
    mean = accepted = 1.0
    means = [mean]
    last = len(acceptance) - 1
    for position in range(k):
        accepted *= acceptance[position if position < last else last] if last >= 0 else 0.0
        mean += accepted
        means.append(mean)
    return means


def breakeven_acceptance(speculative_s: float, plain_s: float, k: int) -> float | None:
    """Return the constant acceptance from which a step of `speculative_s` beats one of `plain_s`.

    None if none does: the step costs more than the k + 1 tokens that it yields at most.
    """
    if speculative_s <= plain_s:
        return 0.0
    if k < 1 or plain_s <= 0 or speculative_s > plain_s * (k + 1):
        return None
    # Newton's steps on 1 + a + … + a^k, which is convex: from 1 they fall to the root.
    ratio, found = speculative_s / plain_s, 1.0
    for _ in range(_MAX_NEWTON):
        tokens, slope = 1.0, 0.0
        for _ in range(k):
            slope = slope * found + tokens
            tokens = tokens * found + 1
        step = (tokens - ratio) / slope
        found -= step
        if step < 1e-9:
            break
    return min(max(found, 0.0), 1.0)


@dataclass(frozen=True, slots=True)
class StepPoint:
    """A measured step: `batch` sequences of `context` tokens on average, `k` drafts each.

    `seconds` is from one step's end to the next, the wait for the drafts included.
    """

    batch: int
    k: int
    context: int
    seconds: float


class StepTimes:
    """Step time over batch, K and context, from measured points.

    Piecewise linear in the batch for each K, linear between Ks, and linear in the context tokens
    of the batch, whose price is fitted over all points. Beyond the largest measured batch the last
    slope goes on; below the smallest its time holds.
    """

    def __init__(self, points: Iterable[StepPoint]) -> None:
        measured = [point for point in points if point.batch > 0 and point.seconds > 0]
        if not measured:
            raise ValueError("step times need at least one measured point")
        self.points = tuple(measured)
        self._context = median(point.context for point in measured)
        self._per_context_token = _context_price(measured)
        curves: dict[int, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
        for point in measured:
            beyond = point.batch * (point.context - self._context)
            at_context = max(point.seconds - self._per_context_token * beyond, 1e-9)
            curves[point.k][point.batch].append(at_context)
        self.tiers = tuple(sorted(curves))
        # Of each tier the batches, ascending, and their times: read several times a decision.
        self._curves = [_Curve(curves[k]) for k in self.tiers]

    def seconds(self, batch: float, k: float, context: float) -> float:
        """Return the time of a step; K outside the measured ones takes the nearest.

        K may be a mean: a step in which some sequences have no drafts verifies fewer tokens.
        """
        tiers = self.tiers
        at = bisect_right(tiers, k)
        base = self._curves[at - 1 if at else 0].seconds(batch)
        if 0 < at < len(tiers) and k > tiers[at - 1]:
            share = (k - tiers[at - 1]) / (tiers[at] - tiers[at - 1])
            base += share * (self._curves[at].seconds(batch) - base)
        whole = base + self._per_context_token * batch * (context - self._context)
        return whole if whole > base / 2 else base / 2


@dataclass(frozen=True, slots=True)
class PrefillTimes:
    """A chunk of n prompt tokens makes its step `base_s` + n · `per_token_s` long."""

    base_s: float
    per_token_s: float

    def seconds(self, tokens: float, chunk: int) -> float:
        """Return the time that `tokens` prompt tokens take in chunks of at most `chunk`."""
        return ceil(tokens / chunk) * self.base_s + tokens * self.per_token_s if tokens > 0 else 0.0


@dataclass(frozen=True, slots=True)
class LaneCost:
    """What one engine of a lane costs, and how much it takes at a time."""

    steps: StepTimes
    prefill: PrefillTimes
    max_num_seqs: int = 256
    chunk_tokens: int = 2048


@dataclass(frozen=True, slots=True)
class Prediction:
    """A request's latency in a lane, and the K that it was predicted with."""

    ttft_s: float
    tpot_s: float
    total_s: float
    k: int


def best_k(
    cost: LaneCost,
    batch: float,
    acceptance: Acceptance,
    context: float,
    tiers: Sequence[int],
    coverage: float = 1.0,
) -> int:
    """Return the K of `tiers` with the most tokens per second; the longest unless clearly worse.

    Learnt step times differ by some percent for no reason, and the longest is what is configured:
    another K has to promise more than `_CLEARLY` better to take its place. Of those that do, the
    best, and the smallest among equals. `coverage` is the share of K that a draft offers on
    average: prompt lookup often has nothing.
    """
    ordered = sorted(tiers)
    if not ordered:
        return 0
    tokens = _expected_tokens(acceptance, ordered[-1])
    rates = {k: tokens[k] / cost.steps.seconds(batch, k * coverage, context) for k in ordered}
    best, rate = ordered[-1], rates[ordered[-1]] * (1 + _CLEARLY)
    for k in ordered[:-1]:
        if rates[k] > rate * (1 + 1e-9):
            best, rate = k, rates[k]
    return best


def predict(
    cost: LaneCost,
    *,
    batch: float,
    k: int,
    acceptance: Acceptance,
    prompt_tokens: float,
    output_tokens: float,
    context: float,
    backlog_tokens: float = 0.0,
    coverage: float = 1.0,
) -> Prediction:
    """Return what a request meets in an engine where `batch` sequences run, itself included.

    `backlog_tokens` are prompt tokens before its own, `coverage` as in `best_k`. What exceeds
    `max_num_seqs` waits for others to end, on average half a request each, in rounds of
    `max_num_seqs`.
    """
    running = min(batch, cost.max_num_seqs)
    tpot = cost.steps.seconds(running, k * coverage, context) / expected_tokens(acceptance, k)
    ttft = cost.prefill.seconds(backlog_tokens + prompt_tokens, cost.chunk_tokens) + tpot
    service = ttft + max(output_tokens - 1, 0) * tpot
    queued = max(batch - cost.max_num_seqs, 0.0) / cost.max_num_seqs * service
    return Prediction(queued + ttft, tpot, queued + service, k)


class _Curve:
    """Step time over the batch for one K, through the mean of the times of each batch."""

    __slots__ = ("_batches", "_times")

    def __init__(self, times: Mapping[int, Sequence[float]]) -> None:
        self._batches = sorted(times)
        self._times = [fmean(times[batch]) for batch in self._batches]

    def seconds(self, batch: float) -> float:
        batches, times = self._batches, self._times
        last = len(batches) - 1
        if batch <= batches[0] or not last:
            return times[0]
        at = bisect_right(batches, batch)
        if at > last:
            at = last
        left, right, low, high = batches[at - 1], batches[at], times[at - 1], times[at]
        slope = (high - low) / (right - left)
        if slope < 0 and batch > right:
            slope = 0.0
        found = low + slope * (batch - left)
        least = (low if low < high else high) / 2
        return found if found > least else least


def _context_price(points: Sequence[StepPoint]) -> float:
    """Return the seconds per context token of the batch, not negative."""
    groups: Mapping[tuple[int, int], list[StepPoint]] = defaultdict(list)
    for point in points:
        groups[point.batch, point.k].append(point)
    weight = total = 0.0
    for group in groups.values():
        for one, other in combinations(group, 2):
            tokens = one.batch * (one.context - other.context)
            total += tokens * (one.seconds - other.seconds)
            weight += tokens * tokens
    return max(total / weight, 0.0) if weight else 0.0
