"""Which lane a request takes: a pure function of the request, the lanes and the measurements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import floor

from rayspec.routing.types import (
    AcceptanceEstimate,
    ClassHistory,
    Decision,
    Lane,
    LaneView,
    RequestView,
    Rule,
    Speculation,
)

__all__ = ["ClassPolicy", "NoLane", "PolicySpec", "decide"]


@dataclass(frozen=True, slots=True)
class ClassPolicy:
    """What differs for one workload class; None means as for all."""

    speculation: Speculation = Speculation.AUTO
    acceptance_floor: float | None = None
    max_concurrency: int | None = None
    k: int | None = None


@dataclass(frozen=True, slots=True)
class PolicySpec:
    """Settings of the policy.

    Speculation stops paying when verification makes the engine compute-bound: from
    `max_speculative_concurrency` sequences per replica on, requests go to the plain lane. A class
    whose acceptance lies under `acceptance_floor` with confidence, after at least
    `acceptance_min_drafted` recent draft tokens, goes there too, but for `exploration_share` of
    its requests, which keep it measured. `acceptance_half_life_s` is for the `AcceptanceTracker`.
    """

    max_speculative_concurrency: int = 16
    acceptance_floor: float = 0.4
    acceptance_half_life_s: float = 300.0
    acceptance_min_drafted: int = 200
    exploration_share: float = 0.02
    constrained_lane: Lane = Lane.PLAIN
    classes: Mapping[str, ClassPolicy] = field(default_factory=dict)


class NoLane(ValueError):
    """There is no lane to choose from."""


_ALL_DEFAULT = ClassPolicy()
_NO_HISTORY = ClassHistory()
_WANTED = {Speculation.ON: Lane.SPECULATIVE, Speculation.OFF: Lane.PLAIN}


def decide(
    request: RequestView,
    lanes: Mapping[Lane, LaneView],
    acceptance: AcceptanceEstimate,
    spec: PolicySpec,
    history: ClassHistory = _NO_HISTORY,
) -> Decision:
    """Choose one of `lanes`, those that exist, and say why; the first rule that applies decides.

    An explicit wish of the request; constrained generation; the only lane; the setting of the
    class; a lost draft; measured acceptance; concurrency; else speculation. A lane of which no
    replica reports is not chosen while the other has some: its requests would wait for a restart.
    """
    own = spec.classes.get(request.workload_class, _ALL_DEFAULT)
    lane, rule, detail = _choose(request, lanes, acceptance, spec, own, history)
    if not lanes[lane].replicas and lane.other in lanes and lanes[lane.other].replicas:
        lane, rule, detail = lane.other, Rule.DOWN, f"no replica of the {lane} lane reports"
    k = None
    if lane is Lane.SPECULATIVE:
        k = own.k if request.k is None else request.k
    return Decision(lane, request.workload_class, f"{rule} {detail}", k)


def _choose(
    request: RequestView,
    lanes: Mapping[Lane, LaneView],
    acceptance: AcceptanceEstimate,
    spec: PolicySpec,
    own: ClassPolicy,
    history: ClassHistory,
) -> tuple[Lane, Rule, str]:
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
    lowest = spec.acceptance_floor if own.acceptance_floor is None else own.acceptance_floor
    floored = acceptance.drafted >= spec.acceptance_min_drafted and acceptance.high < lowest
    explored = floored and _explores(history.floored, spec.exploration_share)
    if floored and not explored:
        return Lane.PLAIN, Rule.ACCEPTANCE, f"{acceptance.high:.2f} < {lowest:.2f}"
    # The limit is one replica's; a replica that has not reported lately is not counted on.
    limit = spec.max_speculative_concurrency if own.max_concurrency is None else own.max_concurrency
    limit *= max(1, lane.replicas)
    if lane.concurrency >= limit:
        return Lane.PLAIN, Rule.CONCURRENCY, f"{lane.concurrency} >= {limit}"
    if explored:
        return Lane.SPECULATIVE, Rule.EXPLORE, f"acceptance {acceptance.high:.2f} < {lowest:.2f}"
    return Lane.SPECULATIVE, Rule.DEFAULT, f"concurrency {lane.concurrency} < {limit}"


def _prefer(
    wanted: Lane, lanes: Mapping[Lane, LaneView], rule: Rule, why: str
) -> tuple[Lane, Rule, str]:
    """Choose `wanted` if it exists, else the lane that does, saying so."""
    if wanted in lanes:
        return wanted, rule, why
    return wanted.other, Rule.ONLY_LANE, f"{why} but no {wanted} lane"


def _explores(turn: int, share: float) -> bool:
    """Whether request number `turn` is one of the evenly spread `share` that explores."""
    return floor((turn + 1) * share) > floor(turn * share)
