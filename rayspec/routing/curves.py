"""The step times that decisions reckon with: a calibration, corrected by what engines measure now.

Without a calibration the engines' own measurements stand alone. With one they replace its points
of about the same batch and K, and scale the others, so that a machine which is slower today than
when it was calibrated is seen at every load. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from rayspec.routing.cost_model import LaneCost, PrefillTimes, StepPoint, StepTimes
from rayspec.routing.traffic import Lengths
from rayspec.routing.types import EngineProfile, Lane

__all__ = ["ClassPrior", "Curves", "LaneCurve", "Measured", "lane_curve"]

_MOST_SCALE = 3.0


@dataclass(frozen=True, slots=True)
class ClassPrior:
    """What a calibration found of a class: acceptance per position, and lengths."""

    acceptance: tuple[float, ...] = ()
    lengths: Lengths = field(default_factory=Lengths)


@dataclass(frozen=True, slots=True)
class Measured:
    """A calibration, as routing takes it.

    `contention` is how much longer a lane's step is while the other lane works too, `overhead_s`
    what a request waits outside its engine.
    """

    costs: Mapping[Lane, LaneCost]
    contention: Mapping[Lane, float] = field(default_factory=dict)
    overhead_s: Mapping[Lane, float] = field(default_factory=dict)
    classes: Mapping[str, ClassPrior] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LaneCurve:
    """What one engine of a lane costs, by whether the other lane works too.

    `online` says that engines measured it, with K as the drafts that were verified; in a
    calibration K is what was asked for, and coverage is in the times already.
    """

    alone: LaneCost
    contended: LaneCost
    online: bool
    overhead_s: float = 0.0


class Curves:
    """Keeps the curve of every lane, and builds it anew only when a replica has measured more."""

    def __init__(self, measured: Measured | None = None) -> None:
        self._measured = measured
        self._built: dict[Lane, tuple[tuple[EngineProfile, ...], LaneCurve | None]] = {}

    def curve(self, lane: Lane, profiles: tuple[EngineProfile, ...]) -> LaneCurve | None:
        """Return the curve of `lane`, whose replicas report `profiles`; None if nothing is known.

        A lane without replicas keeps its last curve.
        """
        known = self._built.get(lane)
        if known is not None and (not profiles or known[0] == profiles):
            return known[1]
        curve = lane_curve(lane, profiles, self._measured)
        self._built[lane] = (profiles, curve)
        return curve


def lane_curve(
    lane: Lane, profiles: Collection[EngineProfile], measured: Measured | None
) -> LaneCurve | None:
    """Return the curve that a calibration and the engines of a lane give together."""
    points = [point for profile in profiles for point in profile.steps]
    prefill = _mean_prefill([p.prefill for p in profiles if p.prefill is not None])
    base = None if measured is None else measured.costs.get(lane)
    if base is None or measured is None:
        if not points or prefill is None:
            return None
        some = next(iter(profiles))
        cost = LaneCost(StepTimes(points), prefill, some.max_num_seqs, some.chunk_tokens)
        return LaneCurve(cost, cost, True)
    scale = _scale(points, base.steps)
    contention = measured.contention.get(lane, 1.0)
    overhead_s = measured.overhead_s.get(lane, 0.0)
    alone, contended = (
        replace(
            base,
            steps=StepTimes([*points, *_scaled(base.steps.points, points, scale * factor)]),
            prefill=prefill or _times(base.prefill, factor),
        )
        for factor in (1.0, contention)
    )
    return LaneCurve(alone, contended, bool(points), overhead_s)


def _scaled(
    points: Collection[StepPoint], online: Collection[StepPoint], scale: float
) -> list[StepPoint]:
    covered = {_cell(point) for point in online}
    return [
        replace(point, seconds=point.seconds * scale)
        for point in points
        if _cell(point) not in covered
    ]


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
