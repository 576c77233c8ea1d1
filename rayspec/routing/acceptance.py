"""Measured acceptance of drafts per class: recent requests count most, and doubt is kept."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from math import sqrt

from rayspec.routing.types import OTHER_CLASS, AcceptanceEstimate, Outcome

__all__ = ["AcceptanceTracker", "wilson"]

_Z95 = 1.96
_FORGOTTEN = 1.0  # drafted tokens; a class with fewer left may give up its place


@dataclass(slots=True)
class _Sums:
    """Decayed sums of one class as of time `at`."""

    at: float
    drafted: float = 0.0
    accepted: float = 0.0
    trials: float = 0.0


class AcceptanceTracker:
    """Keeps accepted/drafted per class, where a sample's weight halves every `half_life_s`.

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
        self._sums: dict[str, _Sums] = {}

    def observe(self, outcome: Outcome) -> None:
        """Add what a request drafted and got accepted, finished or not; nothing if nothing."""
        drafted = outcome.drafted
        if drafted <= 0:
            return
        sums = self._decayed(self._place(outcome.workload_class))
        sums.drafted += drafted
        sums.accepted += min(max(outcome.accepted, 0), drafted)
        # Within one verification a rejected token rejects all after it, so the tokens of a step
        # are one observation, not K: counting tokens would make the interval too narrow.
        sums.trials += min(outcome.steps, drafted) if outcome.steps > 0 else drafted

    def estimate(self, workload_class: str) -> AcceptanceEstimate:
        """Return the estimate of a class, or of `other` for one without a place."""
        name = workload_class
        if name not in self._sums and name not in self._known and self._full():
            name = OTHER_CLASS
        if name not in self._sums:
            return AcceptanceEstimate(name)
        sums = self._decayed(name)
        if sums.drafted < _FORGOTTEN:
            return AcceptanceEstimate(name, drafted=sums.drafted)
        mean = sums.accepted / sums.drafted
        low, high = wilson(mean, sums.trials)
        return AcceptanceEstimate(name, mean, low, high, sums.drafted)

    def estimates(self) -> list[AcceptanceEstimate]:
        """Return the estimates of all classes that have a place, for telemetry."""
        return [self.estimate(name) for name in sorted(self._sums)]

    def _full(self) -> bool:
        return len(self._sums.keys() - self._known) >= self._max_extra

    def _place(self, name: str) -> str:
        """Return the name under which samples of class `name` are kept."""
        if name in self._sums or name in self._known:
            return name
        if self._full():
            for extra in self._sums.keys() - self._known:
                if self._decayed(extra).drafted < _FORGOTTEN:
                    del self._sums[extra]
        return OTHER_CLASS if self._full() else name

    def _decayed(self, name: str) -> _Sums:
        now = self._clock()
        sums = self._sums.setdefault(name, _Sums(now))
        weight = 0.5 ** (max(0.0, now - sums.at) / self._half_life_s)
        sums.drafted *= weight
        sums.accepted *= weight
        sums.trials *= weight
        sums.at = now
        return sums


def wilson(share: float, trials: float, z: float = _Z95) -> tuple[float, float]:
    """Return the Wilson score interval of a share seen in `trials` (may be fractional) trials."""
    if trials <= 0:
        return 0.0, 1.0
    z2 = z * z / trials
    centre = (share + z2 / 2) / (1 + z2)
    half = z * sqrt(share * (1 - share) / trials + z2 / (4 * trials)) / (1 + z2)
    # The interval holds the share by construction; rounding must not say otherwise.
    return max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share))
