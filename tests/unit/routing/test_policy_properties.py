"""What holds for every request, load, acceptance, forecast and setting."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from rayspec.routing.policy import PolicySpec
from rayspec.routing.types import (
    AcceptanceEstimate,
    ClassHistory,
    Forecast,
    Lane,
    LaneView,
    RequestView,
    Rule,
    Speculation,
)
from tests.support.one_draft import decide, other
from tests.support.policies import (
    P,
    S,
    counts,
    estimates,
    forecasts,
    histories,
    laned_histories,
    present_lanes,
    requests,
    shares,
    specs,
    views,
)
from tests.support.properties import quick


@quick
@given(requests, present_lanes, estimates, specs, histories)
def test_total_and_never_an_absent_lane(
    request_view: RequestView,
    present: dict[Lane, LaneView],
    acceptance: AcceptanceEstimate,
    spec: PolicySpec,
    history: ClassHistory,
) -> None:
    decision = decide(request_view, present, acceptance, spec, history)

    assert decision.lane in present
    assert decision.workload_class == request_view.workload_class
    assert decision.rule in set(Rule) - {Rule.SPILL}
    assert decision.k is None or decision.lane is S


@quick
@given(requests, estimates, specs, histories, views)
def test_an_override_is_respected(
    request_view: RequestView,
    acceptance: AcceptanceEstimate,
    spec: PolicySpec,
    history: ClassHistory,
    view: LaneView,
) -> None:
    both = {S: view, P: replace(view, lane=P)}
    lane = decide(request_view, both, acceptance, spec, history).lane

    if request_view.speculation is Speculation.ON:
        assert lane is S
    if request_view.speculation is Speculation.OFF:
        assert lane is P


@quick
@given(requests, present_lanes, estimates, specs, histories, counts)
def test_more_load_never_brings_a_request_into_the_speculative_lane(
    request_view: RequestView,
    present: dict[Lane, LaneView],
    acceptance: AcceptanceEstimate,
    spec: PolicySpec,
    history: ClassHistory,
    more: int,
) -> None:
    before = decide(request_view, present, acceptance, spec, history).lane
    busier = {
        lane: replace(view, in_flight=view.in_flight + more, waiting=view.waiting + more)
        for lane, view in present.items()
    }
    after = decide(request_view, busier, acceptance, spec, history).lane

    assert not (before is P and after is S)


@quick
@given(requests, estimates, specs, laned_histories, views, forecasts, shares, shares)
def test_a_slower_lane_is_only_chosen_by_a_rule_that_says_so(
    view: RequestView,
    acceptance: AcceptanceEstimate,
    spec: PolicySpec,
    history: ClassHistory,
    lane: LaneView,
    predicted: Forecast,
    margin: float,
    loss: float,
) -> None:
    spec = replace(spec, hysteresis=margin, exploration_loss=loss)
    both = {S: lane, P: replace(lane, lane=P)}

    decision = decide(view, both, acceptance, spec, history, predicted)

    ours = predicted.lanes[decision.lane].total_s
    theirs = predicted.lanes[other(decision.lane)].total_s
    if decision.rule == Rule.FASTER:
        assert ours <= theirs
    elif decision.rule == Rule.STEADY:
        assert ours * (1 - margin) <= theirs
        assert history.lane is decision.lane
    elif decision.rule == Rule.EXPLORE and "loss" in decision.reason:
        chosen = decision.prediction
        assert chosen is not None
        assert chosen.total_s <= (1 + loss) * max(ours, theirs) * (1 + 1e-9)
    else:
        assert decision.rule not in {Rule.FASTER, Rule.STEADY, Rule.DEFAULT}


@quick
@given(requests, estimates, specs, laned_histories, views, forecasts, st.floats(1, 100))
def test_a_slower_other_lane_never_drives_a_request_there(
    view: RequestView,
    acceptance: AcceptanceEstimate,
    spec: PolicySpec,
    history: ClassHistory,
    lane: LaneView,
    predicted: Forecast,
    factor: float,
) -> None:
    spec = replace(spec, exploration_share=0.0)
    both = {S: lane, P: replace(lane, lane=P)}
    chosen = decide(view, both, acceptance, spec, history, predicted).lane
    worse = dict(predicted.lanes)
    rejected = worse[other(chosen)]
    worse[other(chosen)] = replace(rejected, total_s=rejected.total_s * factor)

    again = decide(view, both, acceptance, spec, history, replace(predicted, lanes=worse))

    assert again.lane is chosen
