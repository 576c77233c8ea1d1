"""Which steps a lane took alone and which beside another lane, where they share hardware.

An engine measures its steps and does not know who else works; the ingress knows when each lane
works. What an engine's sums grew by between two reports is what it measured in between: alone, if
all others rested, or beside one. From that follow the step times of both cases, and where a load
was met in one of them only, how much longer a step takes beside another lane: the contention.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from rayspec.routing.cost_model import StepPoint, StepTimes
from rayspec.routing.learner import StepLearner, StepSum
from rayspec.routing.types import EngineProfile, EngineSnapshot, Lane

__all__ = ["Overlap", "Split", "contention"]

# Reports come with every answer and once a second; a longer pause says nothing about its middle.
_MOST_S = 1.0
# A time counts as alone, or as beside another lane, if it was so but for this share of it.
_IMPURE = 0.1
# Of one report so many steps count: a long one must not outweigh all others.
_STEPS_OF_A_REPORT = 16
_MOST_CONTENTION = 4.0


@dataclass(frozen=True, slots=True)
class Split:
    """Step times of a lane by whether another one worked; `share` is of its work beside it."""

    alone: tuple[StepPoint, ...] = ()
    beside: tuple[StepPoint, ...] = ()
    share: float = 0.0


def contention(split: Split, prior: float, weight: float) -> float:
    """Return a step beside another lane ÷ one alone.

    `prior` weighs as much as `weight` loads that were met in both cases.
    """
    ratios = _ratios(split.alone, split.beside)
    found = (prior * weight + sum(ratios)) / (weight + len(ratios))
    return min(max(found, 1.0), _MOST_CONTENTION)


def _ratios(alone: Collection[StepPoint], beside: Collection[StepPoint]) -> list[float]:
    if not alone or not beside:
        return []
    times, batches = StepTimes(alone), {p.k: [q.batch for q in alone if q.k == p.k] for p in beside}
    return [
        p.seconds / times.seconds(p.batch, p.k, p.context)
        for p in beside
        if batches[p.k] and min(batches[p.k]) <= p.batch <= max(batches[p.k])
    ]


@dataclass(frozen=True, slots=True)
class _Report:
    """What an engine had measured, and how long its lane had worked by then."""

    sums: Mapping[object, StepSum]
    worked_s: float
    beside_s: float


class Overlap:
    """Tells apart what engines measure. Not thread-safe.

    What was seen counts half after `half_life_s`, as with the engines' own measurements.
    """

    def __init__(self, clock: Callable[[], float], half_life_s: float = 60.0) -> None:
        self._clock = clock
        self._half_life_s = half_life_s
        self._at = clock()
        self._working: Collection[Lane] = ()
        self._worked_s = dict.fromkeys(Lane, 0.0)
        self._beside_s = dict.fromkeys(Lane, 0.0)
        self._share: dict[Lane, float] = {}
        self._reports: dict[tuple[Lane, str], _Report] = {}
        self._alone = {lane: StepLearner(clock, half_life_s) for lane in Lane}
        self._beside = {lane: StepLearner(clock, half_life_s) for lane in Lane}

    def note(self, working: Collection[Lane]) -> None:
        """Note who works from now on."""
        now = self._clock()
        elapsed = max(now - self._at, 0.0)
        both = len(self._working) > 1
        for lane in self._working:
            self._worked_s[lane] += elapsed
            keep = 0.5 ** (min(elapsed, _MOST_S) / self._half_life_s)
            share = self._share.get(lane, float(both))
            self._share[lane] = share * keep + float(both) * (1 - keep)
            self._beside_s[lane] += elapsed if both else 0.0
        self._at, self._working = now, working

    def observe(self, snapshot: EngineSnapshot) -> None:
        """Take in what an engine has measured; `note` first who works."""
        profile = snapshot.profile
        if profile is None or not profile.sums:
            return
        key, lane = (snapshot.lane, snapshot.replica), snapshot.lane
        known = self._reports.get(key)
        if known is not None and not _grown(known, profile):
            return
        sums = {} if known is None else dict(known.sums)
        sums |= {one.key: one for one in profile.sums}
        self._reports[key] = _Report(sums, self._worked_s[lane], self._beside_s[lane])
        if known is None or (worked_s := self._worked_s[lane] - known.worked_s) <= 0:
            return
        share = (self._beside_s[lane] - known.beside_s) / worked_s
        if share <= _IMPURE:
            _learn(self._alone[lane], known, profile)
        elif share >= 1 - _IMPURE:
            _learn(self._beside[lane], known, profile)

    def split(self, lane: Lane) -> Split:
        """Return what was measured in each case."""
        return Split(
            self._alone[lane].points(), self._beside[lane].points(), self._share.get(lane, 0.0)
        )


def _grown(known: _Report, profile: EngineProfile) -> bool:
    newest = profile.sums[0]
    return known.sums.get(newest.key) != newest


def _learn(learner: StepLearner, known: _Report, profile: EngineProfile) -> None:
    for now in profile.sums:
        then = known.sums.get(now.key, StepSum(*now.key))
        steps = now.steps - then.steps
        if steps > 0:  # else the engine was restarted, or nothing came
            drafts, context, seconds = (
                (now.drafts - then.drafts) / steps,
                (now.context - then.context) / steps,
                (now.seconds - then.seconds) / steps,
            )
            for _ in range(min(steps, _STEPS_OF_A_REPORT)):
                learner.decoded(now.batch, drafts, context, seconds)
