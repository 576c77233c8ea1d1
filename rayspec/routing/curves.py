"""The step times that decisions reckon with: a calibration, corrected by what engines measure now.

Without a calibration the engines' own measurements stand alone, and a load that an engine has not
met yet is guessed to its favour: if it is chosen for that, it is measured at once, whereas a load
that looked too slow would never be tried. With a calibration the measurements replace its points of
about the same batch and K, and scale the others, so that a machine which is slower today than when
it was calibrated is seen at every load. Lanes that share a machine are measured now alone, now
beside the other, which are two curves (`overlap`). Pure.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf

from rayspec.routing.cost_model import LaneCost, PrefillTimes, StepPoint, StepTimes
from rayspec.routing.overlap import Split, contention
from rayspec.routing.traffic import Lengths
from rayspec.routing.types import EngineProfile, Lane

__all__ = ["ClassPrior", "Curves", "LaneCurve", "Measured", "lane_curve"]

_MOST_SCALE = 3.0
# Before lanes that share hardware were seen beside each other, each slows the other by half: too
# much is better, because a request in another lane then needs a good reason, and exploration
# finds out. A calibration weighs as much as a load that engines met in both cases, a guess less.
_ASSUMED, _DOUBTED, _BELIEVED = 1.5, 0.25, 1.0
_UNSPLIT = Split()
_NO_TIERS: Mapping[Lane, Sequence[int]] = {}
# Step times move within seconds at the soonest.
_EVERY_S = 0.25

Profiles = tuple[EngineProfile, ...]


@dataclass(frozen=True, slots=True)
class ClassPrior:
    """What a calibration found of a class: acceptance per position, and lengths."""

    acceptance: tuple[float, ...] = ()
    lengths: Lengths = field(default_factory=Lengths)


@dataclass(frozen=True, slots=True)
class Measured:
    """A calibration, as routing takes it.

    `contention` is how much longer a lane's step is while another lane works too, `overhead_s`
    what a request waits outside its engine.
    """

    costs: Mapping[Lane, LaneCost]
    contention: Mapping[Lane, float] = field(default_factory=dict)
    overhead_s: Mapping[Lane, float] = field(default_factory=dict)
    classes: Mapping[str, ClassPrior] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LaneCurve:
    """What one engine of a lane costs, by whether another lane works too.

    K is the drafts that a sequence verifies, of which a draft may offer fewer than were asked for.
    """

    alone: LaneCost
    contended: LaneCost
    overhead_s: float = 0.0


class Curves:
    """Keeps the curve of every lane, and builds it anew only when a replica has measured more.

    That is at once where a load was measured for the first time, otherwise after `every_s`: engines
    report with every answer, and each report changes their means by a little. `k_tiers` are the
    draft lengths of each lane that drafts. Where the lanes are `shared`, work on the same hardware,
    a calibration or the engines tell by how much they slow each other.
    """

    def __init__(
        self,
        measured: Measured | None = None,
        k_tiers: Mapping[Lane, Sequence[int]] = _NO_TIERS,
        *,
        shared: bool = False,
        clock: Callable[[], float] = time.monotonic,
        every_s: float = _EVERY_S,
    ) -> None:
        self._clock = clock
        self._every_s = every_s
        self._built_at = -inf
        self._measured = measured
        self._shared = shared
        self._tiers = {Lane.PLAIN: (0,), **{lane: tuple(tiers) for lane, tiers in k_tiers.items()}}
        self._profiles: dict[Lane, Profiles] = {}
        self._curves: dict[Lane, LaneCurve] = {}

    def update(
        self, profiles: Mapping[Lane, Profiles], split: Callable[[Lane], Split] = lambda _: _UNSPLIT
    ) -> Mapping[Lane, LaneCurve]:
        """Return the curves of the lanes of which something is known.

        A lane without replicas keeps its last curve. `split` tells what was measured alone and what
        beside another lane.
        """
        changed = {
            lane: found for lane, found in profiles.items() if found != self._profiles.get(lane)
        }
        now = self._clock()
        due = now - self._built_at >= self._every_s or any(
            _loads(found) != _loads(self._profiles.get(lane, ())) for lane, found in changed.items()
        )
        if (due and any(changed.values())) or not self._curves:
            self._built_at = now
            self._profiles |= {lane: found for lane, found in changed.items() if found}
            fastest = min(
                (
                    point.seconds
                    for known in self._profiles.values()
                    for profile in known
                    for point in profile.steps
                ),
                default=0.0,
            )
            for lane in profiles:
                known = self._profiles.get(lane, ())
                curve = lane_curve(
                    lane,
                    known,
                    self._measured,
                    self._tiers.get(lane, ()),
                    fastest,
                    split=split(lane) if self._shared else None,
                )
                if curve is not None:
                    self._curves[lane] = curve
                else:
                    self._curves.pop(lane, None)
        return self._curves


def lane_curve(
    lane: Lane,
    profiles: Collection[EngineProfile],
    measured: Measured | None,
    tiers: Sequence[int] = (),
    fastest: float = 0.0,
    *,
    split: Split | None = None,
) -> LaneCurve | None:
    """Return the curve that a calibration and the engines of a lane give together.

    Without a calibration, loads that were not met are guessed for K of `tiers`; no step is guessed
    to be faster than `fastest`, the shortest of any lane. Without a `split` the lanes do not share
    hardware, or what an engine measures is taken for what it is alone.
    """
    base = None if measured is None else measured.costs.get(lane)
    calibrated = None if measured is None else measured.contention.get(lane)
    points = [point for profile in profiles for point in profile.steps]
    prefill = _mean_prefill([p.prefill for p in profiles if p.prefill is not None])
    if base is None:
        if not points or prefill is None:
            return None
        some = next(iter(profiles))
        base = LaneCost(StepTimes(points), prefill, some.max_num_seqs, some.chunk_tokens)
        slower = 1.0 if split is None else contention(split, _ASSUMED, _DOUBTED)
        if split is not None:
            mixed = 1 + split.share * (slower - 1)
            known = _first(split.alone, _slower(split.beside, 1 / slower))
            points = _first(known, _slower(points, 1 / mixed))
            prefill = _times(prefill, 1 / mixed)
            fastest = min([fastest, *(point.seconds for point in points)])
        points = _first(points, _guessed(points, tiers, fastest))
    else:
        # What was not measured alone must not bend a calibration: that steps take longer beside
        # another lane than it says may be the machine or the lane, and alone it will show.
        points = points if split is None else list(split.alone)
        scale = _scale(points, base.steps)
        prefill = prefill if split is None and prefill else _times(base.prefill, scale)
        points = _first(points, _slower(base.steps.points, scale))
        slower = calibrated or 1.0
        if split is not None:
            slower = contention(replace(split, alone=tuple(points)), slower, _BELIEVED)
    alone = contended = replace(base, steps=StepTimes(points), prefill=prefill)
    if slower != 1:
        beside = () if split is None else split.beside
        steps = StepTimes(_first(beside, _slower(points, slower)))
        contended = replace(base, steps=steps, prefill=_times(prefill, slower))
    return LaneCurve(alone, contended, _overhead_s(lane, measured))


def _overhead_s(lane: Lane, measured: Measured | None) -> float:
    """Return what requests of a lane wait outside its engine: way and ingress are every lane's."""
    if measured is None:
        return 0.0
    if lane in measured.costs:
        return measured.overhead_s.get(lane, 0.0)
    return min(measured.overhead_s.values(), default=0.0)


def _loads(profiles: Profiles) -> list[int]:
    """Return how many loads each replica has measured."""
    return [len(profile.steps) for profile in profiles]


def _guessed(
    points: Collection[StepPoint], tiers: Sequence[int], fastest: float
) -> list[StepPoint]:
    """Return points for smaller loads than those that were measured.

    Fewer tokens take at best a time in proportion to them, as where compute is the limit. K between
    two that were measured for a batch is left to interpolation.
    """
    covered = {_cell(point) for point in points}
    measured_ks: dict[int, list[int]] = defaultdict(list)
    for size, drafts in covered:
        measured_ks[size].append(drafts)
    guessed = []
    for batch in {1, *(point.batch for point in points)}:
        for k in tiers:
            tokens = batch * (k + 1)
            larger = [p for p in points if p.batch * (p.k + 1) >= tokens and p.batch >= batch]
            known = measured_ks[(batch - 1).bit_length()]
            if not larger or (known and min(known) <= k <= max(known)):
                continue
            best = min(larger, key=lambda p: p.seconds / (p.batch * (p.k + 1)))
            seconds = best.seconds * tokens / (best.batch * (best.k + 1))
            guessed.append(StepPoint(batch, k, best.context, max(seconds, fastest)))
    return guessed


def _first(*sources: Collection[StepPoint]) -> list[StepPoint]:
    """Return the points of the first source, and of each other what those before it lack."""
    found: list[StepPoint] = []
    for source in sources:
        covered = {_cell(point) for point in found}
        found += [point for point in source if _cell(point) not in covered]
    return found


def _slower(points: Collection[StepPoint], factor: float) -> list[StepPoint]:
    return [replace(point, seconds=point.seconds * factor) for point in points]


def _cell(point: StepPoint) -> tuple[int, int]:
    return (point.batch - 1).bit_length(), point.k


def _scale(online: Collection[StepPoint], base: StepTimes) -> float:
    """Return how much longer steps take now than when they were calibrated."""
    if not online:
        return 1.0
    now = sum(point.seconds for point in online)
    then = sum(base.seconds(point.batch, point.k, point.context) for point in online)
    return min(max(now / then, 1 / _MOST_SCALE), _MOST_SCALE)


def _times(prefill: PrefillTimes, factor: float) -> PrefillTimes:
    return PrefillTimes(prefill.base_s * factor, prefill.per_token_s * factor)


def _mean_prefill(fits: Collection[PrefillTimes]) -> PrefillTimes | None:
    if not fits:
        return None
    return PrefillTimes(
        sum(fit.base_s for fit in fits) / len(fits),
        sum(fit.per_token_s for fit in fits) / len(fits),
    )
