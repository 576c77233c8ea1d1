"""What a usual request costs in each lane at every load: the lines that cross. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rayspec.routing.cost_model import LaneCost, best_k, predict
from rayspec.routing.curves import LaneCurve
from rayspec.routing.forecast import NO_DRAFTS, Drafts
from rayspec.routing.traffic import Lengths
from rayspec.routing.types import Lane, LaneView

__all__ = ["Crossover", "LaneLine", "LoadPoint", "crossover"]

_MOST_SHOWN = 512
_EQUAL = 0.01


@dataclass(frozen=True, slots=True)
class LoadPoint:
    """What a request meets as one of `concurrency` sequences in an engine, with the best K."""

    concurrency: int
    tpot_s: float
    total_s: float
    k: int


@dataclass(frozen=True, slots=True)
class LaneLine:
    """One lane's cost over the load of one of its engines, and where it stands now.

    `now` is the sequences per engine, one more of which a new request would be. Beyond
    `measured_to` sequences no step was measured: the line goes on with its last slope.
    """

    points: tuple[LoadPoint, ...]
    now: float
    measured_to: int
    beside: bool  # another lane works too, on the same hardware if that makes it slower


@dataclass(frozen=True, slots=True)
class Crossover:
    """The lanes for a usual request of a class; those of unknown step times are left out.

    `acceptance` is that of the first position in the first lane with drafts; `assumed` says that it
    is largely the prior.
    """

    workload_class: str
    lengths: Lengths
    acceptance: float
    assumed: bool
    lanes: Mapping[Lane, LaneLine] = field(default_factory=dict)

    @property
    def sooner(self) -> tuple[tuple[int, Lane], ...]:
        """From which loads on tokens come sooner in which lane; empty with fewer than two lines.

        Where they are as good as equal, as with K = 0, the lane that was sooner before stays so.
        """
        if len(self.lanes) < 2:
            return ()
        found: list[tuple[int, Lane]] = []
        lanes = [lane for lane in Lane if lane in self.lanes]
        for points in zip(*(self.lanes[lane].points for lane in lanes), strict=True):
            tpot_s = {lane: point.tpot_s for lane, point in zip(lanes, points, strict=True)}
            lane = min(lanes, key=tpot_s.__getitem__)
            equal = _EQUAL * tpot_s[lanes[-1]]
            if not found or tpot_s[found[-1][1]] - tpot_s[lane] > equal:
                found.append((points[0].concurrency, lane))
        return tuple(found)


def crossover(
    workload_class: str,
    views: Mapping[Lane, LaneView],
    curves: Mapping[Lane, LaneCurve],
    lengths: Lengths,
    drafts: Mapping[Lane, Drafts],
) -> Crossover:
    """Return the lines that `forecast` would follow if only the load changed.

    As there, a lane beside which another one works now is slower where they share hardware.
    """
    known = {lane: view for lane, view in views.items() if lane in curves}
    busy = {lane for lane, view in views.items() if view.concurrency > 0}
    beside = {lane for lane in known if busy - {lane}}
    costs = {
        lane: curves[lane].contended if lane in beside else curves[lane].alone for lane in known
    }
    now = {lane: view.concurrency / max(view.replicas, 1) for lane, view in known.items()}
    most = max(
        [
            1,
            *(cost.max_num_seqs for cost in costs.values()),
            *(int(each) + 1 for each in now.values()),
        ]
    )
    loads = _loads(min(most, _MOST_SHOWN))
    lanes = {}
    for lane, cost in costs.items():
        own = drafts.get(lane, NO_DRAFTS)
        points = tuple(_point(curves[lane], cost, load, lengths, own) for load in loads)
        # Points of `alone` that were not measured are guesses for smaller loads, never larger ones.
        measured_to = max(point.batch for point in curves[lane].alone.steps.points)
        lanes[lane] = LaneLine(points, now[lane], measured_to, lane in beside)
    first = next((drafts[lane] for lane in Lane if lane in drafts), NO_DRAFTS)
    acceptance = first.acceptance[0] if first.acceptance else 0.0
    return Crossover(workload_class, lengths, acceptance, first.assumed, lanes)


def _point(
    curve: LaneCurve,
    cost: LaneCost,
    load: int,
    lengths: Lengths,
    drafts: Drafts,
) -> LoadPoint:
    context = lengths.prompt + lengths.output / 2
    running = min(load, cost.max_num_seqs)
    k = best_k(cost, running, drafts.acceptance, context, drafts.tiers, drafts.coverage)
    found = predict(
        cost,
        batch=load,
        k=k,
        acceptance=drafts.acceptance,
        prompt_tokens=lengths.prompt,
        output_tokens=lengths.output,
        context=context,
        coverage=drafts.coverage,
    )
    return LoadPoint(load, found.tpot_s, found.total_s + curve.overhead_s, k)


def _loads(most: int) -> list[int]:
    """Return loads from 1 to `most`, closer to each other where they are small."""
    loads, load = [1], 1
    while load < most:
        load = min(max(load + 1, round(load * 1.3)), most)
        loads.append(load)
    return loads
