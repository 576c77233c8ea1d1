from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayspec.routing.cost_model import Prediction
from rayspec.routing.curves import Measured
from rayspec.routing.policy import ClassPolicy, NoLane, PolicySpec, wanted_tiers
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
from tests.support import one_draft
from tests.support.one_draft import BOTH, decide, other
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
    # Who wants no drafts has none where there is no other lane.
    k = 0 if lane is S and request_view is WANTS_OFF else None
    assert decide(request_view, present, acceptance, spec) == Decision(
        lane, request_view.workload_class, reason, k
    )


def test_a_class_without_speculation_has_no_drafts_where_the_plain_lane_is_down() -> None:
    spec = of_class(speculation=Speculation.OFF)
    down = {**lanes(), P: replace(lanes()[P], replicas=0)}

    decision = decide(CHAT, down, GOOD, spec)

    assert (decision.lane, decision.rule, decision.k) == (S, Rule.DOWN, 0)
    wanted = decide(WANTS_ON, down, GOOD, spec)
    assert (wanted.lane, wanted.k) == (S, None)


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
    constrained_lane=st.sampled_from(BOTH),
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
present_lanes = st.tuples(views, st.sets(st.sampled_from(BOTH), min_size=1)).map(
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


def forecast(
    speculative: float, plain: float, *, k: int = 4, drafting: float | None = None
) -> Forecast:
    """Return predicted seconds of both lanes; `drafting` those with drafts where none is best."""
    best = Prediction(0.1, 0.01, speculative, k)
    with_drafts = best if k else Prediction(0.1, 0.01, drafting or speculative, 2)
    return one_draft.predicted(
        {S: best, P: Prediction(0.1, 0.01, plain, 0)}, with_drafts, 0.7, False, breakeven=0.5
    )


MEASURED = PolicySpec(exploration_share=0.0, hysteresis=0.05, k_tiers=(0, 2, 4))
AT_S, AT_P = ClassHistory(0, 9, S), ClassHistory(0, 9, P)
COMPARED = "speculative 800ms < plain 1000ms at measured acceptance 0.70"


@pytest.mark.parametrize(
    ("predicted", "history", "lane", "rule"),
    [
        (forecast(0.8, 1.0), ClassHistory(), S, Rule.FASTER),
        (forecast(1.0, 0.8), ClassHistory(), P, Rule.FASTER),
        (forecast(1.0, 1.0), ClassHistory(), P, Rule.FASTER),  # no draft for nothing
        # a class stays where it is until the other lane is clearly faster
        (forecast(0.96, 1.0), AT_P, P, Rule.STEADY),
        (forecast(0.94, 1.0), AT_P, S, Rule.FASTER),
        (forecast(1.0, 0.96), AT_S, S, Rule.STEADY),
        (forecast(1.0, 0.94), AT_S, P, Rule.FASTER),
        (forecast(0.8, 1.0), AT_S, S, Rule.FASTER),
    ],
)
def test_the_lane_that_is_predicted_faster(
    predicted: Forecast, history: ClassHistory, lane: Lane, rule: Rule
) -> None:
    decision = decide(CHAT, lanes(busy=99), POOR, MEASURED, history, predicted)

    assert (decision.lane, decision.rule) == (lane, rule)


@pytest.mark.parametrize(
    ("own", "burden", "history", "lane"),
    [
        ((0.9, 1.0), (0.0, 0.0), ClassHistory(), S),
        ((0.9, 1.0), (0.2, 0.0), ClassHistory(), P),  # the others would lose more than it gains
        ((0.9, 1.0), (0.2, 0.2), ClassHistory(), S),
        ((0.49, 1.0), (9.0, 0.0), ClassHistory(), S),  # it takes twice as long at most
        ((0.51, 1.0), (9.0, 0.0), ClassHistory(), P),
        ((0.9, 1.0), (0.12, 0.0), AT_S, S),  # a change is for what is clearly less
        ((0.9, 1.0), (0.2, 0.0), AT_S, P),
        ((0.49, 1.0), (9.0, 0.0), AT_P, S),
    ],
)
def test_a_request_gives_way_to_those_whom_it_would_delay(
    own: tuple[float, float], burden: tuple[float, float], history: ClassHistory, lane: Lane
) -> None:
    predicted = replace(forecast(*own), burden_s=dict(zip((S, P), burden, strict=True)))
    decision = decide(CHAT, lanes(), UNKNOWN, MEASURED, history, predicted)

    assert decision.lane is lane
    if burden == (0.2, 0.0):
        assert "speculative 900+200ms" in decision.reason


def test_the_reason_says_what_was_compared() -> None:
    decision = decide(CHAT, lanes(), UNKNOWN, MEASURED, ClassHistory(), forecast(0.8, 1.0))
    sure = forecast(0.8, 1.0)
    assumed = replace(sure, drafting={S: replace(sure.drafting[S], assumed=True)})

    assert decision.reason == f"faster {COMPARED}"
    assert decision.predicted == "speculative=800ms plain=1000ms k=4"
    guess = decide(CHAT, lanes(), UNKNOWN, MEASURED, ClassHistory(), assumed)
    assert "at prior acceptance 0.70" in guess.reason


@pytest.mark.parametrize(
    ("view", "present", "spec", "lane", "rule"),
    [
        # every rule that existed before goes before the prediction
        (WANTS_ON, lanes(), MEASURED, S, Rule.OVERRIDE),
        (CONSTRAINED, lanes(), MEASURED, P, Rule.CONSTRAINED),
        (CHAT, lanes(P), MEASURED, P, Rule.ONLY_LANE),
        (CHAT, lanes(attached=False), MEASURED, P, Rule.DETACHED),
        (
            CHAT,
            lanes(),
            replace(MEASURED, classes={"chat": ClassPolicy(Speculation.OFF)}),
            P,
            Rule.CLASS,
        ),
        # limits count where they are configured, the general floor only without predictions
        (CHAT, lanes(busy=8), replace(MEASURED, max_speculative_concurrency=8), P, "concurrency"),
        (
            CHAT,
            lanes(),
            replace(MEASURED, classes={"chat": ClassPolicy(acceptance_floor=0.3)}),
            P,
            Rule.ACCEPTANCE,
        ),
        (CHAT, lanes(), replace(MEASURED, acceptance_floor=0.9), S, Rule.FASTER),
        # a class's own hysteresis
        (
            CHAT,
            lanes(),
            replace(MEASURED, classes={"chat": ClassPolicy(hysteresis=0.5)}),
            P,
            Rule.STEADY,
        ),
    ],
)
def test_rules_before_the_prediction(
    view: RequestView, present: dict[Lane, LaneView], spec: PolicySpec, lane: Lane, rule: str
) -> None:
    decision = decide(view, present, POOR, spec, AT_P, forecast(0.8, 1.0))

    assert (decision.lane, decision.rule) == (lane, rule)


def experts(*present: Lane) -> dict[Lane, LaneView]:
    return {lane: replace(view, experts=8) for lane, view in lanes(*present).items()}


def test_a_mixture_of_experts_speculates_by_itself_only_with_a_calibration() -> None:
    calibrated = replace(MEASURED, measured=Measured({}))
    ask = forecast(0.5, 1.0)

    guarded = decide(CHAT, experts(), GOOD, MEASURED, AT_S, ask)
    assert (guarded.lane, guarded.rule) == (P, Rule.EXPERTS)
    assert guarded.reason == "experts 8 experts and no routing.calibration"
    assert decide(CHAT, experts(), GOOD, calibrated, AT_S, ask).lane is S
    assert decide(WANTS_ON, experts(), GOOD, MEASURED, AT_S, ask).lane is S
    of_its_class = replace(MEASURED, classes={"chat": ClassPolicy(Speculation.ON)})
    assert decide(CHAT, experts(), GOOD, of_its_class, AT_S, ask).lane is S


@pytest.mark.parametrize(("view", "k"), [(CHAT, 0), (WANTS_ON, None)])
def test_without_a_plain_lane_a_mixture_of_experts_decodes_without_drafts(
    view: RequestView, k: int | None
) -> None:
    assert decide(view, experts(S), GOOD, MEASURED).k == k


@pytest.mark.parametrize(
    ("view", "predicted", "k"),
    [
        (CHAT, forecast(0.5, 1.0, k=2), 2),
        (CHAT, forecast(0.5, 1.0, k=0), 0),
        (CHAT, forecast(0.5, 1.0, k=4), None),  # the engine's own: the body stays as it came
        (replace(CHAT, k=4), forecast(0.5, 1.0, k=4), 4),
        (CHAT, forecast(1.0, 0.5, k=4), None),
    ],
)
def test_the_engine_is_told_the_best_k(
    view: RequestView, predicted: Forecast, k: int | None
) -> None:
    assert decide(view, lanes(), GOOD, MEASURED, ClassHistory(), predicted).k == k


@pytest.mark.parametrize(
    ("view", "own", "tiers"),
    [
        (CHAT, ClassPolicy(), (0, 2, 4)),
        (replace(CHAT, k=3), ClassPolicy(), (0, 2, 3)),
        (replace(CHAT, k=9), ClassPolicy(), (0, 2, 4)),
        (replace(CHAT, k=0), ClassPolicy(), (0,)),
        (CHAT, ClassPolicy(k=2), (0, 2)),
        (WANTS_ON, ClassPolicy(), (2, 4)),
        (replace(WANTS_ON, k=0), ClassPolicy(), (0,)),
        (CHAT, ClassPolicy(Speculation.ON), (2, 4)),
    ],
)
def test_draft_lengths_to_choose_from(
    view: RequestView, own: ClassPolicy, tiers: tuple[int, ...]
) -> None:
    assert wanted_tiers(view, replace(MEASURED, classes={"chat": own})) == tiers
    assert wanted_tiers(view, PolicySpec()) == ()


def turns(predicted: Forecast, lane: Lane, **spec: float) -> list[Decision]:
    policy = replace(MEASURED, **{"exploration_share": 0.1, **spec})  # type: ignore[arg-type]
    return [
        decide(CHAT, lanes(), GOOD, policy, ClassHistory(0, turn, lane), predicted)
        for turn in range(100)
    ]


def test_a_share_of_requests_keeps_the_other_lane_measured() -> None:
    made = turns(forecast(0.9, 1.0), S)

    explored = [decision for decision in made if decision.lane is P]
    assert len(explored) == 10
    assert {decision.rule for decision in explored} == {Rule.EXPLORE}
    assert "at a loss of 11%" in explored[0].reason


def test_exploration_is_not_paid_for_at_any_price() -> None:
    assert {d.lane for d in turns(forecast(0.7, 1.0), S, exploration_loss=0.3)} == {S}
    assert {d.lane for d in turns(forecast(1.0, 0.7), P, exploration_loss=0.3)} == {P}
    assert {d.lane for d in turns(forecast(1.0, 0.9), P, exploration_share=0.0)} == {P}


def test_a_class_without_drafts_explores_drafts_within_the_same_bound() -> None:
    made = turns(forecast(0.9, 1.0, k=0, drafting=1.0), S)
    drafted = [d for d in made if d.lane is S and d.k == 2]
    assert len(drafted) == len([d for d in made if d.lane is P]) == 5
    assert drafted[0].prediction is not None
    assert drafted[0].prediction.total_s == 1.0

    assert {d.k for d in turns(forecast(1.1, 1.0, k=4), P) if d.lane is S} == {4}

    bad = turns(forecast(0.9, 1.0, k=0, drafting=2.0), S)
    assert {d.k for d in bad if d.lane is S} == {0}
    assert {d.lane for d in turns(forecast(1.1, 1.0, k=0, drafting=2.0), P)} == {P}


def test_a_lane_that_nothing_is_known_of_gets_some_requests() -> None:
    known = {S: replace(lanes()[S], measured=True), P: lanes()[P]}
    made = [decide(CHAT, known, GOOD, SPEC, ClassHistory(0, turn)) for turn in range(100)]

    explored = [decision for decision in made if decision.lane is P]
    assert len(explored) == 10
    assert explored[0].reason == "explore the plain lane is not measured yet"
    fixed = replace(SPEC, exploration_share=0.0)
    assert decide(CHAT, known, GOOD, fixed, ClassHistory(0, 9)).lane is S


times = st.floats(1e-3, 1e3)
forecasts = st.builds(
    forecast,
    times,
    times,
    k=st.sampled_from([0, 2, 4]),
    drafting=st.none() | times,
)
laned_histories = st.builds(
    ClassHistory, st.integers(0, 100), st.integers(0, 10**6), st.none() | st.sampled_from(BOTH)
)


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
