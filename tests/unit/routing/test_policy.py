from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayspec.routing.policy import ClassPolicy, NoLane, PolicySpec, decide
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
from tests.support.properties import quick

S, P = Lane.SPECULATIVE, Lane.PLAIN
CHAT = RequestView("chat")
SPEC = PolicySpec(
    max_speculative_concurrency=8,
    acceptance_floor=0.4,
    acceptance_min_drafted=100,
    exploration_share=0.02,
)
UNKNOWN = AcceptanceEstimate("chat")
POOR = AcceptanceEstimate("chat", 0.2, 0.15, 0.25, 1000.0)
GOOD = AcceptanceEstimate("chat", 0.8, 0.75, 0.85, 1000.0)


def lanes(*present: Lane, busy: int = 0, attached: bool | None = True) -> dict[Lane, LaneView]:
    return {
        lane: LaneView(lane, in_flight=busy, replicas=1, attached=attached)
        for lane in present or (S, P)
    }


def of_class(**fields: object) -> PolicySpec:
    return replace(SPEC, classes={"chat": ClassPolicy(**fields)})  # type: ignore[arg-type]


WANTS_ON = replace(CHAT, speculation=Speculation.ON)
WANTS_OFF = replace(CHAT, speculation=Speculation.OFF)
CONSTRAINED = replace(CHAT, constrained=True)


@pytest.mark.parametrize(
    ("request_view", "present", "acceptance", "spec", "lane", "reason"),
    [
        (CHAT, lanes(), UNKNOWN, SPEC, S, "default concurrency 0 < 8"),
        (CHAT, lanes(), GOOD, SPEC, S, "default concurrency 0 < 8"),
        # what the request asks for
        (WANTS_OFF, lanes(), GOOD, SPEC, P, "override speculation=off"),
        (WANTS_ON, lanes(busy=99), POOR, SPEC, S, "override speculation=on"),
        (WANTS_ON, lanes(attached=False), UNKNOWN, SPEC, S, "override speculation=on"),
        (WANTS_ON, lanes(P), GOOD, SPEC, P, "only_lane speculation=on but no speculative lane"),
        (WANTS_OFF, lanes(S), GOOD, SPEC, S, "only_lane speculation=off but no plain lane"),
        (
            replace(CONSTRAINED, speculation=Speculation.ON),
            lanes(),
            GOOD,
            SPEC,
            S,
            "override speculation=on",
        ),
        # constrained generation
        (CONSTRAINED, lanes(), GOOD, SPEC, P, "constrained output format is enforced"),
        (
            CONSTRAINED,
            lanes(),
            GOOD,
            replace(SPEC, constrained_lane=S),
            S,
            "constrained output format is enforced",
        ),
        (
            CONSTRAINED,
            lanes(S),
            GOOD,
            SPEC,
            S,
            "only_lane output format is enforced but no plain lane",
        ),
        # one lane
        (CHAT, lanes(S, busy=99, attached=False), POOR, SPEC, S, "only_lane no plain lane"),
        (CHAT, lanes(P), GOOD, SPEC, P, "only_lane no speculative lane"),
        # settings of the class
        (
            CHAT,
            lanes(),
            GOOD,
            of_class(speculation=Speculation.OFF),
            P,
            "class chat speculation=off",
        ),
        (
            CHAT,
            lanes(busy=99),
            POOR,
            of_class(speculation=Speculation.ON),
            S,
            "class chat speculation=on",
        ),
        (CHAT, lanes(busy=3), GOOD, of_class(max_concurrency=2), P, "concurrency 3 >= 2"),
        (CHAT, lanes(busy=9), GOOD, of_class(max_concurrency=20), S, "default concurrency 9 < 20"),
        (CHAT, lanes(), POOR, of_class(acceptance_floor=0.1), S, "default concurrency 0 < 8"),
        (CHAT, lanes(), GOOD, of_class(acceptance_floor=0.9), P, "acceptance 0.85 < 0.90"),
        (
            replace(CHAT, workload_class="code"),
            lanes(),
            GOOD,
            of_class(speculation=Speculation.OFF),
            S,
            "default concurrency 0 < 8",
        ),
        # the draft
        (CHAT, lanes(attached=False), GOOD, SPEC, P, "detached draft is not attached"),
        (CHAT, lanes(attached=None), GOOD, SPEC, S, "default concurrency 0 < 8"),
        # measured acceptance
        (CHAT, lanes(), POOR, SPEC, P, "acceptance 0.25 < 0.40"),
        (CHAT, lanes(), replace(POOR, drafted=99.0), SPEC, S, "default concurrency 0 < 8"),
        (CHAT, lanes(), replace(POOR, high=0.4), SPEC, S, "default concurrency 0 < 8"),
        # measured concurrency
        (CHAT, lanes(busy=7), GOOD, SPEC, S, "default concurrency 7 < 8"),
        (CHAT, lanes(busy=8), GOOD, SPEC, P, "concurrency 8 >= 8"),
    ],
)
def test_the_first_rule_that_applies_decides(
    request_view: RequestView,
    present: dict[Lane, LaneView],
    acceptance: AcceptanceEstimate,
    spec: PolicySpec,
    lane: Lane,
    reason: str,
) -> None:
    assert decide(request_view, present, acceptance, spec) == Decision(
        lane, request_view.workload_class, reason
    )


def test_the_limit_is_per_replica_that_reports() -> None:
    present = lanes(busy=12)
    present[S] = replace(present[S], replicas=2)

    assert decide(CHAT, present, GOOD, SPEC).reason == "default concurrency 12 < 16"


@pytest.mark.parametrize(
    ("asked", "of_its_class", "lane", "k"),
    [
        (None, None, S, None),
        (3, None, S, 3),
        (None, 5, S, 5),
        (0, 5, S, 0),
        (3, 5, P, None),
    ],
)
def test_k_of_the_request_goes_before_that_of_its_class(
    asked: int | None, of_its_class: int | None, lane: Lane, k: int | None
) -> None:
    wish = Speculation.AUTO if lane is S else Speculation.OFF

    decision = decide(
        RequestView("chat", wish, False, asked), lanes(), GOOD, of_class(k=of_its_class)
    )

    assert (decision.lane, decision.k) == (lane, k)


@pytest.mark.parametrize(("share", "explored"), [(0.0, 0), (0.02, 20), (0.3, 300), (1.0, 1000)])
def test_a_floored_class_explores_its_share(share: float, explored: int) -> None:
    spec = replace(SPEC, exploration_share=share)

    decisions = [decide(CHAT, lanes(), POOR, spec, ClassHistory(turn)) for turn in range(1000)]

    assert [d.lane for d in decisions].count(S) == explored
    assert {d.rule for d in decisions if d.lane is S} <= {Rule.EXPLORE}


def test_exploration_does_not_add_to_an_overloaded_lane() -> None:
    spec = replace(SPEC, exploration_share=1.0)

    assert decide(CHAT, lanes(busy=8), POOR, spec).reason == "concurrency 8 >= 8"


def test_no_lane_at_all_is_an_error() -> None:
    with pytest.raises(NoLane):
        decide(CHAT, {}, UNKNOWN, SPEC)


counts = st.integers(0, 100)
shares = st.floats(0, 1)
requests = st.builds(
    RequestView,
    workload_class=st.sampled_from(["chat", "code", "something-else"]),
    speculation=st.sampled_from(Speculation),
    constrained=st.booleans(),
    k=st.none() | st.integers(0, 8),
)


@st.composite
def measured(draw: st.DrawFn) -> AcceptanceEstimate:
    low, mean, high = sorted(draw(st.tuples(shares, shares, shares)))
    return AcceptanceEstimate("chat", mean, low, high, draw(st.floats(0, 1e6)))


estimates = measured()
class_policies = st.builds(
    ClassPolicy,
    speculation=st.sampled_from(Speculation),
    acceptance_floor=st.none() | shares,
    max_concurrency=st.none() | counts,
    k=st.none() | st.integers(0, 8),
)
specs = st.builds(
    PolicySpec,
    max_speculative_concurrency=counts,
    acceptance_floor=shares,
    acceptance_min_drafted=st.integers(0, 1000),
    exploration_share=shares,
    constrained_lane=st.sampled_from(Lane),
    classes=st.dictionaries(st.sampled_from(["chat", "code"]), class_policies),
)
views = st.builds(
    LaneView,
    st.just(S),
    in_flight=counts,
    running=counts,
    waiting=counts,
    replicas=st.integers(0, 3),
    attached=st.none() | st.booleans(),
)
present_lanes = st.tuples(views, st.sets(st.sampled_from(Lane), min_size=1)).map(
    lambda drawn: {lane: replace(drawn[0], lane=lane) for lane in drawn[1]}
)
histories = st.builds(ClassHistory, st.integers(0, 10**9))


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


DOWN = LaneView(S, replicas=0, attached=None)
UP = LaneView(P, replicas=1, attached=False)


@pytest.mark.parametrize("view", [CHAT, WANTS_ON])
def test_a_lane_without_replicas_is_replaced_by_one_that_has_some(view: RequestView) -> None:
    decision = decide(view, {S: DOWN, P: UP}, UNKNOWN, SPEC)

    assert (decision.lane, decision.rule) == (P, Rule.DOWN)


def test_before_any_replica_reports_the_policy_chooses_as_ever() -> None:
    decision = decide(CHAT, {S: DOWN, P: replace(UP, replicas=0)}, UNKNOWN, SPEC)

    assert (decision.lane, decision.rule) == (S, Rule.DEFAULT)
