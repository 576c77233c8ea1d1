"""Which lane a request takes: a pure function of the request, the lanes and the measurements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rayspec.routing.curves import Measured
from rayspec.routing.exploration import exploration, explores
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

# Without measurements of a lane: sequences per speculative engine that surely leave compute idle
# for verification, and the share of requests that goes to the lane that nothing is known of.
_UNMEASURED_CONCURRENCY = 16
_UNMEASURED_SHARE = 0.1
# How much longer a request may take for the sake of others.
_MOST_GIVEN = 1.0


@dataclass(frozen=True, slots=True)
class ClassPolicy:
    """What differs for one workload class; None means as for all."""

    speculation: Speculation = Speculation.AUTO
    acceptance_floor: float | None = None
    max_concurrency: int | None = None
    k: int | None = None
    hysteresis: float | None = None


@dataclass(frozen=True, slots=True)
class PolicySpec:
    """Settings of the policy.

    A request goes where its predicted latency and the delay that it causes to others are smaller
    together, but gives way to them by at most as much as its own latency; its class changes lanes
    only for a sum that is smaller by `hysteresis`. `exploration_share` of a class's requests go the
    other way, which keeps it measured there, unless they are predicted to take longer by
    `exploration_loss`.

    `shared_hardware` says that engines of both lanes work on the same processor or GPU.

    `max_speculative_concurrency` sequences per replica are the most that the speculative lane
    takes; None is no limit, or a cautious one while step times are unknown. Until then, too, a
    class whose acceptance lies under `acceptance_floor` with confidence, after at least
    `acceptance_min_drafted` recent draft tokens, goes to the plain lane, but for the share that
    explores. `acceptance_half_life_s` is for the trackers, `k_tiers` the draft lengths that the
    engines take, and `measured` the calibration.
    """

    max_speculative_concurrency: int | None = None
    acceptance_floor: float = 0.4
    acceptance_half_life_s: float = 300.0
    acceptance_min_drafted: int = 200
    exploration_share: float = 0.02
    exploration_loss: float = 0.25
    hysteresis: float = 0.03
    constrained_lane: Lane = Lane.PLAIN
    shared_hardware: bool = False
    k_tiers: tuple[int, ...] = ()
    measured: Measured | None = None
    classes: Mapping[str, ClassPolicy] = field(default_factory=dict)

    def of(self, workload_class: str) -> ClassPolicy:
        """Return the settings of one class."""
        return self.classes.get(workload_class, _ALL_DEFAULT)


class NoLane(ValueError):
    """There is no lane to choose from."""


_Choice = tuple[Lane, Rule, str]

_ALL_DEFAULT = ClassPolicy()
_NO_HISTORY = ClassHistory()
_WANTED = {Speculation.ON: Lane.SPECULATIVE, Speculation.OFF: Lane.PLAIN}


def decide(
    request: RequestView,
    lanes: Mapping[Lane, LaneView],
    acceptance: AcceptanceEstimate,
    spec: PolicySpec,
    history: ClassHistory = _NO_HISTORY,
    forecast: Forecast | None = None,
    gathering: Gathering | None = None,
) -> Decision:
    """Choose one of `lanes`, those that exist, and say why; the first rule that applies decides.

    An explicit wish of the request; constrained generation; the only lane; the setting of the
    class; a lost draft; a mixture of experts that nobody has calibrated; limits that are
    configured; then, where both lanes have predicted latencies, the lane in which all `gather` if
    they share hardware, or those latencies; else measured acceptance and concurrency. A lane of
    which no replica reports is not chosen while the other has some: its requests would wait for a
    restart.
    """
    own = spec.of(request.workload_class)
    known = forecast, gathering
    lane, rule, detail = _choose(request, lanes, acceptance, spec, own, history, *known)
    if not lanes[lane].replicas and lane.other in lanes and lanes[lane.other].replicas:
        lane, rule, detail = lane.other, Rule.DOWN, f"no replica of the {lane} lane reports"
    k = _k(request, spec, own, lanes, rule, forecast) if lane is Lane.SPECULATIVE else None
    return Decision(lane, request.workload_class, f"{rule} {detail}", k, forecast)


def wanted_tiers(request: RequestView, spec: PolicySpec) -> tuple[int, ...]:
    """Return the draft lengths that a request may get: those of the engines, up to its limit.

    Who asks for speculation gets some.
    """
    own = spec.of(request.workload_class)
    most = own.k if request.k is None else request.k
    asks = Speculation.ON in (request.speculation, own.speculation)
    least = 1 if asks and most != 0 else 0
    tiers = {k for k in spec.k_tiers if k >= least and (most is None or k <= most)}
    if most is not None and spec.k_tiers:
        tiers.add(min(most, spec.k_tiers[-1]))
    return tuple(sorted(tiers))


def _k(
    request: RequestView,
    spec: PolicySpec,
    own: ClassPolicy,
    lanes: Mapping[Lane, LaneView],
    rule: Rule,
    forecast: Forecast | None,
) -> int | None:
    """Return the draft length to ask for; None where it is the engine's own."""
    asked = own.k if request.k is None else request.k
    if rule is Rule.ONLY_LANE and _uncalibrated_experts(lanes, spec):
        return 0 if request.speculation is Speculation.AUTO else asked
    prediction = None if forecast is None else forecast.lanes.get(Lane.SPECULATIVE)
    if rule is Rule.EXPLORE and forecast is not None and forecast.drafting is not None:
        return forecast.drafting.k
    if prediction is None:
        return asked
    longest = max(spec.k_tiers, default=None)
    return None if asked is None and prediction.k == longest else prediction.k


def _choose(
    request: RequestView,
    lanes: Mapping[Lane, LaneView],
    acceptance: AcceptanceEstimate,
    spec: PolicySpec,
    own: ClassPolicy,
    history: ClassHistory,
    forecast: Forecast | None,
    gathering: Gathering | None,
) -> _Choice:
    if not lanes:
        raise NoLane("the application has no lane")
    wish = _WANTED.get(request.speculation)
    if wish is not None:
        return _prefer(wish, lanes, Rule.OVERRIDE, f"speculation={request.speculation}")
    if request.constrained:
        return _prefer(spec.constrained_lane, lanes, Rule.CONSTRAINED, "output format is enforced")
    if len(lanes) == 1:
        (only,) = lanes
        return only, Rule.ONLY_LANE, f"no {only.other} lane"
    set_lane = _WANTED.get(own.speculation)
    if set_lane is not None:
        return set_lane, Rule.CLASS, f"{request.workload_class} speculation={own.speculation}"
    lane = lanes[Lane.SPECULATIVE]
    if lane.attached is False:
        return Lane.PLAIN, Rule.DETACHED, "draft is not attached"
    if _uncalibrated_experts(lanes, spec):
        return Lane.PLAIN, Rule.EXPERTS, f"{lane.experts} experts and no routing.calibration"
    predicted = forecast is not None and len(forecast.lanes) == len(lanes)
    lowest = own.acceptance_floor
    if lowest is None and not predicted:
        lowest = spec.acceptance_floor
    floored = (
        lowest is not None
        and acceptance.drafted >= spec.acceptance_min_drafted
        and acceptance.high < lowest
    )
    explored = floored and explores(history.floored, spec.exploration_share)
    if floored and not explored:
        return Lane.PLAIN, Rule.ACCEPTANCE, f"{acceptance.high:.2f} < {lowest:.2f}"
    # The limit is one replica's; a replica that has not reported lately is not counted on.
    limit = spec.max_speculative_concurrency if own.max_concurrency is None else own.max_concurrency
    if limit is None and not predicted:
        limit = _UNMEASURED_CONCURRENCY
    if limit is not None:
        limit *= max(1, lane.replicas)
        if lane.concurrency >= limit:
            return Lane.PLAIN, Rule.CONCURRENCY, f"{lane.concurrency} >= {limit}"
    if explored:
        return Lane.SPECULATIVE, Rule.EXPLORE, f"acceptance {acceptance.high:.2f} < {lowest:.2f}"
    if predicted and forecast is not None:
        return _faster(lane, forecast, spec, own, history, gathering)
    return _unmeasured(lanes, spec, history, lane.concurrency, limit)


def _faster(
    speculative: LaneView,
    forecast: Forecast,
    spec: PolicySpec,
    own_policy: ClassPolicy,
    history: ClassHistory,
    gathering: Gathering | None,
) -> _Choice:
    """Choose by predicted latency, and by that of those whom the request delays."""
    if gathering is not None and gathering.lane is not None:
        lane, rule = gathering.lane, Rule.TOGETHER
        detail = f"{lane} {gathering.rate:.0f} > {gathering.otherwise:.0f} tokens/s of all"
    else:
        lane, rule, detail = _quicker(forecast, spec, own_policy, history)
    share, loss = spec.exploration_share, spec.exploration_loss
    shared = gathering is not None
    explored = exploration(forecast, lane, speculative, history.turns, share, loss, shared=shared)
    if explored is not None:
        target, loss = explored
        return target, Rule.EXPLORE, f"{detail} at a loss of {max(loss, 0.0):.0%}"
    return lane, rule, detail


def _quicker(
    forecast: Forecast, spec: PolicySpec, own_policy: ClassPolicy, history: ClassHistory
) -> _Choice:
    """Choose the lane where the request and those whom it delays are answered sooner."""
    own = {lane: prediction.total_s for lane, prediction in forecast.lanes.items()}
    most = min(own.values()) * (1 + _MOST_GIVEN)
    # Equal costs are no reason to occupy a draft.
    fair = [lane for lane in (Lane.PLAIN, Lane.SPECULATIVE) if own[lane] <= most]
    cost = forecast.cost_s
    lane = min(fair, key=cost.__getitem__)
    rule = Rule.FASTER
    margin = spec.hysteresis if own_policy.hysteresis is None else own_policy.hysteresis
    stays = history.lane is lane.other and lane.other in fair
    if stays and cost[lane] >= cost[lane.other] * (1 - margin):
        lane, rule = lane.other, Rule.STEADY
    return lane, rule, _compared(lane, forecast)


def _compared(lane: Lane, forecast: Forecast) -> str:
    ours, theirs = (_told(each, forecast) for each in (lane, lane.other))
    sign = "<" if forecast.cost_s[lane] < forecast.cost_s[lane.other] else "~"
    source = "prior" if forecast.assumed else "measured"
    return f"{ours} {sign} {theirs} at {source} acceptance {forecast.acceptance:.2f}"


def _told(lane: Lane, forecast: Forecast) -> str:
    """Return the latency in a lane, and behind a plus the delay of others if there is any."""
    own = f"{lane} {1000 * forecast.lanes[lane].total_s:.0f}"
    burden = 1000 * forecast.burden_s.get(lane, 0.0)
    return f"{own}+{burden:.0f}ms" if burden >= 0.5 else f"{own}ms"


def _unmeasured(
    lanes: Mapping[Lane, LaneView],
    spec: PolicySpec,
    history: ClassHistory,
    concurrency: int,
    limit: int | None,
) -> _Choice:
    """Choose while the step times of a lane are unknown: speculate, and get them measured."""
    unknown = [lane for lane, view in lanes.items() if not view.measured and view.replicas]
    if len(unknown) == 1 and spec.exploration_share > 0:
        (lane,) = unknown
        if lane is Lane.PLAIN and explores(history.turns, _UNMEASURED_SHARE):
            return lane, Rule.EXPLORE, f"the {lane} lane is not measured yet"
    return Lane.SPECULATIVE, Rule.DEFAULT, f"concurrency {concurrency} < {limit}"


def _uncalibrated_experts(lanes: Mapping[Lane, LaneView], spec: PolicySpec) -> bool:
    """Whether the model is a mixture of experts, whose verification reads more experts than one
    token does: what that costs is not guessed."""
    view = lanes.get(Lane.SPECULATIVE)
    return spec.measured is None and view is not None and view.experts > 0


def _prefer(wanted: Lane, lanes: Mapping[Lane, LaneView], rule: Rule, why: str) -> _Choice:
    """Choose `wanted` if it exists, else the lane that does, saying so."""
    if wanted in lanes:
        return wanted, rule, why
    return wanted.other, Rule.ONLY_LANE, f"{why} but no {wanted} lane"
