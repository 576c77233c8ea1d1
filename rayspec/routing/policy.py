"""Which lane a request takes: a pure function of the request, the lanes and the measurements."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import floor

from rayspec.routing.exploration import exploration, explores
from rayspec.routing.limits import Limits, uncalibrated_experts
from rayspec.routing.policy_spec import ClassPolicy, PolicySpec
from rayspec.routing.quickest import quickest
from rayspec.routing.sharing import Gathering
from rayspec.routing.types import (
    AcceptanceEstimate,
    ClassHistory,
    Decision,
    Forecast,
    Lane,
    LaneView,
    RequestView,
    Rule,
    Speculation,
)

__all__ = ["ClassPolicy", "NoLane", "PolicySpec", "decide", "wanted_tiers"]

# The share of requests that goes to lanes that nothing is known of.
_UNMEASURED_SHARE = 0.1


class NoLane(ValueError):
    """There is no lane to choose from."""


_Choice = tuple[Lane, Rule, str]

_LIMITS = frozenset({Rule.DETACHED, Rule.EXPERTS, Rule.ACCEPTANCE, Rule.CONCURRENCY})
_NO_HISTORY = ClassHistory()
_NO_FORECAST = Forecast()


@dataclass(frozen=True, slots=True)
class _Situation:
    """All that is looked at."""

    request: RequestView
    lanes: Mapping[Lane, LaneView]
    acceptance: Mapping[Lane, AcceptanceEstimate]
    spec: PolicySpec
    history: ClassHistory
    forecast: Forecast
    gathering: Gathering | None

    @property
    def own(self) -> ClassPolicy:
        """The settings of the request's class."""
        return self.spec.of(self.request.workload_class)


def decide(
    request: RequestView,
    lanes: Mapping[Lane, LaneView],
    acceptance: Mapping[Lane, AcceptanceEstimate],
    spec: PolicySpec,
    history: ClassHistory = _NO_HISTORY,
    forecast: Forecast | None = None,
    gathering: Gathering | None = None,
) -> Decision:
    """Choose one of `lanes`, those that exist, and say why; the first rule that applies decides.

    An explicit wish of the request; constrained generation; the only lane; the setting of the
    class; in a lane with drafts a lost draft, a mixture of experts that nobody has calibrated and
    limits that are configured; then, where lanes have predicted latencies, the lane in which all
    `gather` if they share hardware, or those latencies; else measured acceptance and concurrency.
    Who wants drafts gets one of the lanes that have them, by the same rules. A lane of which no
    replica reports is not chosen while another has some: its requests would wait for a restart.
    """
    now = _Situation(request, lanes, acceptance, spec, history, forecast or _NO_FORECAST, gathering)
    lane, rule, detail = _choose(now)
    if not lanes[lane].replicas and (up := [each for each in lanes if lanes[each].replicas]):
        asks = request.speculation is Speculation.ON
        instead = _least(now, [each for each in up if each.drafts and asks] or up)
        lane, rule, detail = instead, Rule.DOWN, f"no replica of the {lane} lane reports"
    k = _k(now, lane, rule) if lane.drafts else None
    return Decision(lane, request.workload_class, f"{rule} {detail}", k, forecast)


def wanted_tiers(
    request: RequestView, spec: PolicySpec, lane: Lane = Lane.SPECULATIVE
) -> tuple[int, ...]:
    """Return the draft lengths that a request may get in a lane: its engines', up to a limit.

    Who asks for speculation gets some.
    """
    own, offered = spec.of(request.workload_class), spec.tiers(lane)
    most = own.k if request.k is None else request.k
    asks = Speculation.ON in (request.speculation, own.speculation)
    least = 1 if asks and most != 0 else 0
    tiers = {k for k in offered if k >= least and (most is None or k <= most)}
    if most is not None and offered:
        tiers.add(min(most, offered[-1]))
    return tuple(sorted(tiers))


def _k(now: _Situation, lane: Lane, rule: Rule) -> int | None:
    """Return the draft length to ask for; None where it is the engine's own."""
    request, own = now.request, now.own
    wish = request.speculation
    if (own.speculation if wish is Speculation.AUTO else wish) is Speculation.OFF:
        return 0  # there is no lane without drafts
    asked = own.k if request.k is None else request.k
    if uncalibrated_experts(now.lanes[lane], now.spec):
        if rule is Rule.ONLY_LANE:
            return 0 if request.speculation is Speculation.AUTO else asked
        asks = Speculation.ON in (request.speculation, own.speculation)
        if rule in _LIMITS and not asks:  # there is no lane without drafts to go to
            return 0
    prediction, drafting = now.forecast.lanes.get(lane), now.forecast.drafting.get(lane)
    if rule is Rule.EXPLORE and drafting is not None and drafting.best is not None:
        return drafting.best.k
    longest = max(now.spec.tiers(lane), default=None)
    if prediction is None:
        return asked if asked is None or longest is None else min(asked, longest)
    return None if asked is None and prediction.k == longest else prediction.k


def _choose(now: _Situation) -> _Choice:
    request, lanes, spec, own = now.request, now.lanes, now.spec, now.own
    if not lanes:
        raise NoLane("the application has no lane")
    permitted = list(lanes)
    if request.lane is not None:
        return _prefer(now, request.lane, Rule.OVERRIDE, f"lane={request.lane}")
    asks = f"speculation={request.speculation}"
    if request.speculation is Speculation.OFF:
        return _prefer(now, Lane.PLAIN, Rule.OVERRIDE, asks)
    if request.speculation is Speculation.ON:
        permitted = _drafting(lanes)
        if len(permitted) < 2:
            wanted = permitted[0] if permitted else Lane.SPECULATIVE
            return _prefer(now, wanted, Rule.OVERRIDE, asks)
    elif request.constrained:
        return _prefer(now, spec.constrained_lane, Rule.CONSTRAINED, "output format is enforced")
    elif len(lanes) == 1:
        (only,) = lanes
        return only, Rule.ONLY_LANE, f"no {Lane.PLAIN if only.drafts else Lane.SPECULATIVE} lane"
    elif own.speculation is not Speculation.AUTO:
        permitted = _drafting(lanes) if own.speculation is Speculation.ON else [Lane.PLAIN]
        if len(permitted) < 2:
            setting = f"{request.workload_class} speculation={own.speculation}"
            return _prefer(now, permitted[0], Rule.CLASS, setting)
    return _among(now, permitted)


def _among(now: _Situation, permitted: Sequence[Lane]) -> _Choice:
    """Choose one of several lanes: of those that no limit closes, by what was measured."""
    limits = Limits(now.request, now.lanes, now.acceptance, now.spec, now.forecast, permitted)
    remaining = list(permitted)
    closed: dict[Lane, Rule] = {}
    rule, detail = Rule.ONLY_LANE, ""
    for lane in _drafting(permitted):
        found = limits.closed(lane)
        if found is not None and len(remaining) > 1:  # one of them has to take it
            rule, detail = found
            closed[lane] = rule
            remaining.remove(lane)
    floored = [lane for lane, why in closed.items() if why is Rule.ACCEPTANCE]
    if len(remaining) == 1:
        if (explored := _floor_to_explore(now, floored)) is not None:
            rule, detail = limits.closed(explored, explored=True) or (rule, detail)
            return (explored if rule is Rule.EXPLORE else remaining[0]), rule, detail
        return remaining[0], rule, detail
    known = [lane for lane in remaining if lane in now.forecast.lanes]
    if len(known) < 2:
        return _unmeasured(now, limits, remaining)
    if (unknown := _unknown_to_explore(now, remaining, known)) is not None:
        return unknown, Rule.EXPLORE, f"the {unknown} lane is not measured yet"
    return _faster(now, known, [lane for lane in floored if not limits.full(lane)])


def _faster(now: _Situation, lanes: Sequence[Lane], explorable: Sequence[Lane]) -> _Choice:
    """Choose by predicted latency, and by that of those whom the request delays.

    Nobody is sent to those of the `explorable` lanes that are not among `lanes`, but to explore.
    """
    forecast, spec, gathering = now.forecast, now.spec, now.gathering
    alone = len(_drafting(lanes)) > 1 and not any(each.concurrency for each in now.lanes.values())
    # What all together are served by is the mean of classes, which drafts of two kinds suit
    # differently; it is no reason for a request that nobody is beside.
    where = None if gathering is None or alone else gathering
    if where is not None and where.lane is not None and where.lane in lanes:
        lane, rule = where.lane, Rule.TOGETHER
        detail = f"{lane} {where.rate:.0f} > {where.otherwise:.0f} tokens/s of all"
    else:
        among = [each for each in lanes if where is None or each in where.pair] or lanes
        margin = spec.hysteresis if now.own.hysteresis is None else now.own.hysteresis
        lane, rule, detail = quickest(forecast, among, now.history.lane, margin)
    others = lane.others(each for each in forecast.lanes if each in (*lanes, *explorable))
    explored = exploration(
        forecast,
        lane,
        others,
        now.lanes,
        now.history.turns,
        spec.exploration_share,
        spec.exploration_loss,
        shared=gathering is not None,
    )
    if explored is not None:
        target, loss = explored
        return target, Rule.EXPLORE, f"{detail} at a loss of {max(loss, 0.0):.0%}"
    return lane, rule, detail


def _unmeasured(now: _Situation, limits: Limits, lanes: Sequence[Lane]) -> _Choice:
    """Choose while the step times of lanes are unknown: speculate, and get them measured."""
    lane = _drafting(lanes)[0]
    known = [each for each in lanes if now.lanes[each].measured or not now.lanes[each].replicas]
    if lane in known and (other := _unknown_to_explore(now, lanes, known)) is not None:
        return other, Rule.EXPLORE, f"the {other} lane is not measured yet"
    limit = limits.limit(lane)
    load = f"concurrency {now.lanes[lane].concurrency}"
    return lane, Rule.DEFAULT, load if limit is None else f"{load} < {limit}"


def _unknown_to_explore(
    now: _Situation, lanes: Sequence[Lane], known: Collection[Lane]
) -> Lane | None:
    """Return one of the lanes that are not `known`, in turns, if it is time to get it measured."""
    unknown = [each for each in lanes if each not in known and now.lanes[each].replicas]
    turns = now.history.turns
    if not unknown or now.spec.exploration_share <= 0 or not explores(turns, _UNMEASURED_SHARE):
        return None
    return unknown[floor(turns * _UNMEASURED_SHARE) % len(unknown)]


def _floor_to_explore(now: _Situation, floored: Sequence[Lane]) -> Lane | None:
    """Return one of the lanes under their floor, in turns, if it is time to explore it."""
    met, share = now.history.floored, now.spec.exploration_share
    if not floored or not explores(met, share):
        return None
    return floored[floor(met * share) % len(floored)]


def _drafting(lanes: Iterable[Lane]) -> list[Lane]:
    return [lane for lane in lanes if lane.drafts]


def _prefer(now: _Situation, wanted: Lane, rule: Rule, why: str) -> _Choice:
    """Choose `wanted` if it exists, else of the lanes that do, saying so."""
    if wanted in now.lanes:
        return wanted, rule, why
    return _least(now, now.lanes), Rule.ONLY_LANE, f"{why} but no {wanted} lane"


def _least(now: _Situation, lanes: Iterable[Lane]) -> Lane:
    """Return the lane of the least predicted cost, or the first where none is predicted."""
    return now.forecast.by_cost(lanes)[0]
