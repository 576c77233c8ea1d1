"""Measured acceptance of drafts per class, lane and position; recent requests count most.

Each lane that drafts does so in its own way, so what is accepted there is told apart.

vLLM tells for each finished request how many of its steps accepted 0, 1, 2, … draft tokens. A step
that accepted more than i tokens is a success at position i, and one that accepted i or more was a
trial there, if more than i tokens were asked for. A token that the draft did not offer counts as
not accepted, for that is what it yields; how much is offered is told apart, as `coverage`. Where
only totals are known, the positions share one chance, that whose expected total is the seen one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from math import sqrt

from rayspec.routing.cost_model import expected_tokens
from rayspec.routing.types import OTHER_CLASS, AcceptanceEstimate, Lane, Outcome, PositionEstimate

__all__ = ["AcceptanceTracker", "wilson"]

_Z95 = 1.96
_FORGOTTEN = 1.0  # drafted tokens or trials; a class with fewer left may give up its place


@dataclass(slots=True)
class _Sums:
    """Decayed sums of one class in one lane as of time `at`."""

    at: float
    drafted: float = 0.0
    accepted: float = 0.0
    trials: float = 0.0
    asked: float = 0.0
    reached: list[float] = field(default_factory=list)  # steps in which all before were accepted
    passed: list[float] = field(default_factory=list)  # those of them that accepted this one too

    @property
    def forgotten(self) -> bool:
        """Whether too little is left to tell anything."""
        return self.drafted < _FORGOTTEN and sum(self.reached[:1]) < _FORGOTTEN


class AcceptanceTracker:
    """Keeps accepted/drafted per class and lane; a sample's weight halves every `half_life_s`.

    Classes named in `known` always have a place of their own; of those that clients make up at
    most `max_extra` have, and the rest is pooled as `other`. Not thread-safe.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        half_life_s: float = 300.0,
        *,
        known: Collection[str] = (),
        max_extra: int = 64,
    ) -> None:
        if half_life_s <= 0:
            raise ValueError(f"half_life_s must be positive, not {half_life_s}")
        self._clock = clock
        self._half_life_s = half_life_s
        self._known = frozenset(known) | {OTHER_CLASS}
        self._max_extra = max_extra
        self._sums: dict[str, dict[Lane, _Sums]] = {}

    @property
    def known(self) -> frozenset[str]:
        """The classes that have a place whatever comes."""
        return self._known

    def observe(self, outcome: Outcome) -> None:
        """Add what a request drafted and got accepted, finished or not; nothing if nothing."""
        drafted = outcome.drafted
        if drafted <= 0 and outcome.idle_steps <= 0:
            return
        sums = self._decayed(self._place(outcome.workload_class), outcome.lane)
        _add_positions(sums, outcome)
        if drafted <= 0:
            return
        sums.drafted += drafted
        sums.accepted += min(max(outcome.accepted, 0), drafted)
        # Within one verification a rejected token rejects all after it, so the tokens of a step
        # are one observation, not K: counting tokens would make the interval too narrow.
        sums.trials += min(outcome.steps, drafted) if outcome.steps > 0 else drafted

    def place(self, workload_class: str) -> str:
        """Return the name under which a class is looked up: its own, or `other` without a place."""
        if workload_class in self._sums or workload_class in self._known or not self._full():
            return workload_class
        return OTHER_CLASS

    def estimate(self, workload_class: str, lane: Lane = Lane.SPECULATIVE) -> AcceptanceEstimate:
        """Return the estimate of a class in a lane, or of `other` for one without a place."""
        name = self.place(workload_class)
        if lane not in self._sums.get(name, ()):
            return AcceptanceEstimate(name)
        sums = self._decayed(name, lane)
        coverage = min(sums.drafted / sums.asked, 1.0) if sums.asked else 1.0
        positions = tuple(_positions(sums))
        if sums.drafted < _FORGOTTEN:
            return AcceptanceEstimate(
                name, drafted=sums.drafted, positions=positions, coverage=coverage
            )
        mean = sums.accepted / sums.drafted
        low, high = wilson(mean, sums.trials)
        return AcceptanceEstimate(name, mean, low, high, sums.drafted, positions, coverage)

    def estimates(self, lane: Lane = Lane.SPECULATIVE) -> list[AcceptanceEstimate]:
        """Return the estimates in a lane of all classes that have a place, for telemetry."""
        return [
            self.estimate(name, lane) for name in sorted(self._sums) if lane in self._sums[name]
        ]

    def _full(self) -> bool:
        return len(self._sums.keys() - self._known) >= self._max_extra

    def _place(self, name: str) -> str:
        """Return the name under which samples of class `name` are kept."""
        if name in self._sums or name in self._known:
            return name
        if self._full():
            for extra in self._sums.keys() - self._known:
                if all(self._decayed(extra, lane).forgotten for lane in self._sums[extra]):
                    del self._sums[extra]
        return OTHER_CLASS if self._full() else name

    def _decayed(self, name: str, lane: Lane) -> _Sums:
        now = self._clock()
        sums = self._sums.setdefault(name, {}).setdefault(lane, _Sums(now))
        weight = 0.5 ** (max(0.0, now - sums.at) / self._half_life_s)
        sums.drafted *= weight
        sums.accepted *= weight
        sums.trials *= weight
        sums.asked *= weight
        sums.reached = [count * weight for count in sums.reached]
        sums.passed = [count * weight for count in sums.passed]
        sums.at = now
        return sums


def _add_positions(sums: _Sums, outcome: Outcome) -> None:
    """Add a request's steps to the counts of each position that was asked for."""
    counts = outcome.by_accepted or _counts_of_totals(outcome)
    k = len(counts) - 1 if outcome.k is None else min(outcome.k, len(counts) - 1)
    if k < 1:
        return
    steps = sum(counts) + outcome.idle_steps
    sums.asked += k * steps
    reached = float(steps)
    for position in range(k):
        if position == len(sums.reached):
            sums.reached.append(0.0)
            sums.passed.append(0.0)
        passed = sum(counts[position + 1 :])
        sums.reached[position] += reached
        sums.passed[position] += passed
        reached = passed


def _counts_of_totals(outcome: Outcome) -> Sequence[float]:
    """Return how many steps accepted 0, 1, … tokens, from the totals alone.

    With a constant chance a, a step of k tokens accepts j < k of them with a^j · (1 − a), and all
    with a^k. Its mean grows with a, so one a gives the seen mean: the estimate by the method of
    moments. The most likely a would need the number of steps that accepted all, which totals hide.
    """
    steps, drafted = outcome.steps, outcome.drafted
    if steps <= 0 or drafted <= 0:
        return (0.0,) * ((outcome.k or 0) + 1)
    k = max(round(drafted / steps), 1) if outcome.k is None else max(outcome.k, 1)
    mean = min(max(outcome.accepted, 0) / steps, k)
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        if expected_tokens(middle, k) - 1 < mean:
            low = middle
        else:
            high = middle
    return tuple(steps * (high**j * (1 - high) if j < k else high**k) for j in range(k + 1))


def _positions(sums: _Sums) -> Iterator[PositionEstimate]:
    for reached, passed in zip(sums.reached, sums.passed, strict=True):
        if reached < _FORGOTTEN * (1 - 1e-9):  # a step's share is a sum that is rounded
            return
        mean = min(passed / reached, 1.0)
        yield PositionEstimate(mean, *wilson(mean, reached), reached)


def wilson(share: float, trials: float, z: float = _Z95) -> tuple[float, float]:
    """Return the Wilson score interval of a share seen in `trials` (may be fractional) trials."""
    if trials <= 0:
        return 0.0, 1.0
    z2 = z * z / trials
    centre = (share + z2 / 2) / (1 + z2)
    half = z * sqrt(share * (1 - share) / trials + z2 / (4 * trials)) / (1 + z2)
    # The interval holds the share by construction; rounding must not say otherwise.
    return max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share))
