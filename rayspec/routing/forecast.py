"""What a request would meet in each lane now, by the cost model. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from rayspec.routing.cost_model import (
    LaneCost,
    Prediction,
    best_k,
    breakeven_acceptance,
    expected_tokens,
    predict,
)
from rayspec.routing.curves import LaneCurve
from rayspec.routing.traffic import Lengths
from rayspec.routing.types import AcceptanceEstimate, Drafting, Forecast, Lane, LaneView

__all__ = ["NO_DRAFTS", "Drafts", "believed_acceptance", "forecast"]

# A class that has shown nothing is reckoned with this: a usual draft for usual text.
DEFAULT_ACCEPTANCE = 0.6
# So many steps' worth of doubt: a few unlucky first steps do not condemn a class.
_PRIOR_STEPS = 16.0
_LEAST_COVERAGE = 0.05


@dataclass(frozen=True, slots=True)
class Drafts:
    """What is known of a lane's drafts for a request.

    `acceptance` is believed, per position, and largely the prior if `assumed`; `tiers` are the
    draft lengths to choose from, and `coverage` is the share of them that the draft offers.
    """

    acceptance: tuple[float, ...] = ()
    tiers: Sequence[int] = ()
    coverage: float = 1.0
    assumed: bool = False


NO_DRAFTS = Drafts(assumed=True)


def believed_acceptance(
    estimate: AcceptanceEstimate, prior: Sequence[float], k: int
) -> tuple[tuple[float, ...], bool]:
    """Return the acceptance per position to reckon with, and whether that is largely the prior.

    Each position's measurements are weighed against the prior, which for positions without any is
    the belief of the one before. Where a step has drafts at all the first one is accepted more
    often than on average (`coverage`), and only such steps reach the second: without that, a class
    that was once given a single draft would never seem to be worth two.
    """
    believed: list[float] = []
    offered = max(estimate.coverage, _LEAST_COVERAGE)
    for position in range(k):
        if position < len(prior):
            expected = prior[position]
        elif prior:
            expected = prior[-1]
        else:
            expected = believed[-1] if believed else DEFAULT_ACCEPTANCE
            if position == 1:
                expected = min(expected / offered, max(expected, DEFAULT_ACCEPTANCE))
        if position < len(estimate.positions):
            seen = estimate.positions[position]
            total = seen.trials + _PRIOR_STEPS
            expected = (seen.mean * seen.trials + expected * _PRIOR_STEPS) / total
        believed.append(expected)
    trials = estimate.positions[0].trials if estimate.positions else 0.0
    return tuple(believed), trials < _PRIOR_STEPS


def forecast(
    views: Mapping[Lane, LaneView],
    curves: Mapping[Lane, LaneCurve],
    lengths: Lengths,
    drafts: Mapping[Lane, Drafts],
    *,
    sequences: int = 1,
) -> Forecast:
    """Return what a request costs in every lane of `views` that has a curve, with the best K.

    `drafts` are those of the lanes that have some. A request of several `sequences` brings all of
    them into one engine, and their prompt once.
    """
    predictions: dict[Lane, Prediction] = {}
    drafting: dict[Lane, Drafting] = {}
    for lane, view in views.items():
        curve = curves.get(lane)
        if curve is None:
            continue
        busy = any(views[other].concurrency > 0 for other in lane.others(views))
        cost = curve.contended if busy else curve.alone
        batch = _batch(view, sequences)
        context = _context(view, batch, lengths)
        known = drafts.get(lane, NO_DRAFTS)
        ask = partial(_predict, curve, cost, view, batch, context, lengths, known)
        running = min(batch, cost.max_num_seqs)
        choose = partial(best_k, cost, running, known.acceptance, context)
        best = choose(known.tiers, known.coverage) if known.tiers else 0
        predictions[lane] = ask(best)
        if not lane.drafts:
            continue
        with_drafts = breakeven = None
        if positive := [k for k in known.tiers if k > 0]:
            k = best or choose(positive, known.coverage)
            with_drafts = predictions[lane] if best else ask(k)
            plain = curves.get(Lane.PLAIN)
            breakeven = _breakeven(cost, plain, running, context, k, known.coverage)
        drafting[lane] = Drafting(with_drafts, known.acceptance, known.assumed, breakeven)
    burden = {
        lane: _delay_inside(
            curves[lane], views, lane, prediction, lengths, drafts.get(lane, NO_DRAFTS), sequences
        )
        + _delay_beside(curves, views, lane, prediction, lengths)
        for lane, prediction in predictions.items()
    }
    return Forecast(predictions, drafting, burden)


def _predict(
    curve: LaneCurve,
    cost: LaneCost,
    view: LaneView,
    batch: float,
    context: float,
    lengths: Lengths,
    drafts: Drafts,
    k: int,
) -> Prediction:
    prediction = predict(
        cost,
        batch=batch,
        k=k,
        acceptance=drafts.acceptance,
        prompt_tokens=lengths.prompt,
        output_tokens=lengths.output,
        context=context,
        backlog_tokens=view.backlog / max(view.replicas, 1),
        coverage=drafts.coverage,
    )
    if not curve.overhead_s:
        return prediction
    return Prediction(
        prediction.ttft_s + curve.overhead_s,
        prediction.tpot_s,
        prediction.total_s + curve.overhead_s,
        prediction.k,
    )


def _delay_inside(
    curve: LaneCurve,
    views: Mapping[Lane, LaneView],
    lane: Lane,
    prediction: Prediction,
    lengths: Lengths,
    drafts: Drafts,
    sequences: int,
) -> float:
    """Return the delay of the others in the request's engine, whose steps it makes longer."""
    view, cost = views[lane], curve.alone
    others = min(view.concurrency / max(view.replicas, 1), cost.max_num_seqs)
    batch = min(others + sequences, cost.max_num_seqs)
    if others <= 0 or batch <= others:
        return 0.0
    context = _context(view, batch, lengths)
    k = prediction.k
    longer = cost.steps.seconds(batch, k, context) - cost.steps.seconds(others, k, context)
    steps = lengths.output / expected_tokens(drafts.acceptance, k)
    return others * steps * max(longer, 0.0)


def _delay_beside(
    curves: Mapping[Lane, LaneCurve],
    views: Mapping[Lane, LaneView],
    lane: Lane,
    prediction: Prediction,
    lengths: Lengths,
) -> float:
    """Return the delay of the one lane that works, if the request starts another beside it.

    Where several work, they are slower than alone already, and how much a further lane adds is not
    measured.
    """
    working = [each for each in lane.others(views) if views[each].concurrency]
    if views[lane].concurrency or len(working) != 1 or working[0] not in curves:
        return 0.0
    other, curve = views[working[0]], curves[working[0]]
    batch = max(other.concurrency / max(other.replicas, 1), 1)
    context = _context(other, batch, lengths)
    alone = curve.alone.steps.seconds(batch, 0, context)
    contended = curve.contended.steps.seconds(batch, 0, context)
    return float(other.concurrency * prediction.total_s * max(1 - alone / contended, 0.0))


def _batch(view: LaneView, sequences: int) -> float:
    """Return the sequences in the engine that takes the request: Serve fills the emptier one."""
    return max((view.concurrency + sequences) / max(view.replicas, 1), sequences, 1)


def _context(view: LaneView, batch: float, lengths: Lengths) -> float:
    own = lengths.prompt + lengths.output / 2
    others = view.context or own
    return (others * (batch - 1) + own) / batch


def _breakeven(
    cost: LaneCost,
    plain: LaneCurve | None,
    batch: float,
    context: float,
    k: int,
    coverage: float,
) -> float | None:
    """Return the acceptance from which the lane at this load beats decoding without drafts."""
    without = (cost if plain is None else plain.alone).steps.seconds(batch, 0, context)
    return breakeven_acceptance(cost.steps.seconds(batch, k * coverage, context), without, k)
