"""Step times that an engine learns from its own steps: recent ones count most, memory is bounded.

Steps fall into cells of similar batch, drafts and context; a cell keeps decayed means, so what it
reports is where its steps really were. A cell that is not visited any more keeps its means for half
an hour: the last measurement of a load is better than none, until it may mislead. Pure, with the
clock injected.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from math import sqrt

from rayspec.routing.cost_model import PrefillTimes, StepPoint

__all__ = ["StepLearner", "StepSum"]

_MIN_STEPS = 8
# Means move on with the machine: at most so many past steps weigh against a new one.
_MEMORY_STEPS = 500.0
_OUTLIER = 4.0
_FORGET_S = 1800.0
# No step takes as long, or as short; anything but a number is neither.
_SHORTEST_S, _LONGEST_S = 1e-6, 3600.0
_MAX_REPORTED = 64
_MAX_SUMS = 256
_REPORTED_SUMS = 16
_CONTEXT_FIRST = 9  # contexts under 2^9 tokens share a cell; then each factor of four has its own


@dataclass(frozen=True, slots=True)
class StepSum:
    """All steps so far of `batch` sequences with about as many drafts and as much context.

    What two of them differ by is what was measured in between. `drafts` is the sum over the steps
    of the mean of a sequence; so is `context`.
    """

    batch: int
    cell: tuple[int, int]
    steps: int = 0
    drafts: float = 0.0
    context: float = 0.0
    seconds: float = 0.0

    @property
    def key(self) -> tuple[int, tuple[int, int]]:
        """What does not change."""
        return self.batch, self.cell


@dataclass(slots=True)
class _Cell:
    """Decayed sums as of time `at`; `steps` only grows."""

    at: float
    steps: int = 0
    weight: float = 0.0
    batch: float = 0.0
    drafts: float = 0.0
    context: float = 0.0
    seconds: float = 0.0


class StepLearner:
    """Learns the times of decode steps, and what prompt tokens add to a step.

    A sample's weight halves every `half_life_s`. Not thread-safe.
    """

    def __init__(self, clock: Callable[[], float], half_life_s: float = 60.0) -> None:
        self._clock = clock
        self._half_life_s = half_life_s
        self._cells: dict[tuple[int, int, int], _Cell] = {}
        # The one that was visited last is the last.
        self._sums: dict[tuple[int, tuple[int, int]], StepSum] = {}
        self._prefill = _Line()
        self._prefill_at = 0.0

    def decoded(self, batch: int, drafts: float, context: float, seconds: float) -> None:
        """Learn from a step of `batch` sequences that verified `drafts` tokens each, on average."""
        if batch < 1 or not _SHORTEST_S < seconds < _LONGEST_S:
            return
        key = (
            (batch - 1).bit_length(),
            round(drafts),
            max(int(context).bit_length() - _CONTEXT_FIRST, 0) + 1 >> 1,
        )
        now = self._clock()
        cell = self._cells.get(key)
        if cell is None:
            cell = self._cells[key] = _Cell(now)
        keep = 0.5 ** (max(0.0, now - cell.at) / self._half_life_s)
        keep = min(keep, _MEMORY_STEPS / (_MEMORY_STEPS + 1))
        if cell.steps >= _MIN_STEPS:
            # One step in which the process was held up must not look like the machine's speed.
            seconds = min(seconds, _OUTLIER * cell.seconds / cell.weight)
        cell.at = now
        cell.steps += 1
        cell.weight = cell.weight * keep + 1
        cell.batch = cell.batch * keep + batch
        cell.drafts = cell.drafts * keep + drafts
        cell.context = cell.context * keep + context
        cell.seconds = cell.seconds * keep + seconds
        self._add(StepSum(batch, key[1:], 1, drafts, context, seconds))

    def _add(self, step: StepSum) -> None:
        known = self._sums.pop(step.key, None)
        if known is not None:
            step = StepSum(
                step.batch,
                step.cell,
                known.steps + 1,
                known.drafts + step.drafts,
                known.context + step.context,
                known.seconds + step.seconds,
            )
        elif len(self._sums) >= _MAX_SUMS:
            del self._sums[next(iter(self._sums))]
        self._sums[step.key] = step

    def sums(self) -> tuple[StepSum, ...]:
        """Return the sums that grew last, the newest first."""
        return tuple(islice(reversed(self._sums.values()), _REPORTED_SUMS))

    def prefilled(self, tokens: float, seconds: float) -> None:
        """Learn from a step of `seconds` that computed `tokens` prompt tokens."""
        if tokens <= 0 or not _SHORTEST_S < seconds < _LONGEST_S:
            return
        now = self._clock()
        keep = 0.5 ** (max(0.0, now - self._prefill_at) / self._half_life_s)
        self._prefill_at = now
        self._prefill.add(tokens, seconds, min(keep, _MEMORY_STEPS / (_MEMORY_STEPS + 1)))

    def points(self) -> tuple[StepPoint, ...]:
        """Return the measured cells; of too many, those that were visited last."""
        now = self._clock()
        for key in [key for key, cell in self._cells.items() if now - cell.at > _FORGET_S]:
            del self._cells[key]
        known = [cell for cell in self._cells.values() if cell.steps >= _MIN_STEPS]
        known.sort(key=lambda cell: cell.at, reverse=True)
        points = (_point(cell) for cell in known[:_MAX_REPORTED])
        return tuple(sorted(points, key=lambda point: (point.k, point.batch, point.context)))

    def prefill(self) -> PrefillTimes | None:
        """Return what a chunk of prompt tokens costs; None before anything was measured."""
        if self._prefill.weight < 1:
            return None
        fastest = min((c.seconds / c.weight for c in self._cells.values() if c.weight), default=0.0)
        return self._prefill.fit(fastest)


class _Line:
    """Decayed least squares of seconds over tokens."""

    def __init__(self) -> None:
        self.weight = self._x = self._y = self._xx = self._xy = 0.0

    def add(self, x: float, y: float, keep: float) -> None:
        self.weight = self.weight * keep + 1
        self._x = self._x * keep + x
        self._y = self._y * keep + y
        self._xx = self._xx * keep + x * x
        self._xy = self._xy * keep + x * y

    def fit(self, base: float) -> PrefillTimes:
        """Return the line; where all x are alike, the one through (0, `base`)."""
        x, y = self._x / self.weight, self._y / self.weight
        variance = max(self._xx / self.weight - x * x, 0.0)
        if sqrt(variance) > 0.2 * x:
            slope = (self._xy / self.weight - x * y) / variance
        else:
            slope = (y - base) / x
        # Neither part of the price is negative, and the line goes through the means.
        slope = min(max(slope, 1e-9), y / x)
        return PrefillTimes(max(y - slope * x, 0.0), slope)


def _point(cell: _Cell) -> StepPoint:
    return StepPoint(
        batch=max(round(cell.batch / cell.weight), 1),
        k=round(cell.drafts / cell.weight),
        context=round(cell.context / cell.weight),
        seconds=cell.seconds / cell.weight,
    )
