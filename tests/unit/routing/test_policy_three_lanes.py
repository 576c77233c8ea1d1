"""Two lanes that draft in different ways, beside one that does not, or by themselves."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayspec.routing.cost_model import Prediction
from rayspec.routing.curves import Measured
from rayspec.routing.policy import ClassPolicy, PolicySpec, decide, wanted_tiers
from rayspec.routing.sharing import Gathering
from rayspec.routing.types import (
    AcceptanceEstimate,
    ClassHistory,
    Decision,
    Drafting,
    Forecast,
    Lane,
    LaneView,
    RequestView,
    Rule,
    Speculation,
)
from tests.support.policies import class_policies, counts, requests, shares, times
from tests.support.properties import quick

S, A, P = Lane.SPECULATIVE, Lane.ALTERNATIVE, Lane.PLAIN
CHAT = RequestView("chat")
WANTS_ON = replace(CHAT, speculation=Speculation.ON)
WANTS_OFF = replace(CHAT, speculation=Speculation.OFF)
SPEC = PolicySpec(
    exploration_share=0.0, hysteresis=0.05, k_tiers=(0, 2, 4), alternative_k_tiers=(0, 8)
)
POOR = AcceptanceEstimate("chat", 0.2, 0.15, 0.25, 1000.0)
GOOD = AcceptanceEstimate("chat", 0.8, 0.75, 0.85, 1000.0)
BOTH_GOOD = {S: GOOD, A: GOOD}


def lanes(*present: Lane, **views: dict[str, object]) -> dict[Lane, LaneView]:
    """Return views of lanes, of all three by default; `views` says what differs by lane."""
    return {
        lane: replace(
            LaneView(lane, replicas=1, attached=lane.drafts),
            **views.get(str(lane), {}),  # type: ignore[arg-type]
        )
        for lane in present or (S, A, P)
    }


def forecast(
    *,
    speculative: float | None = None,
    alternative: float | None = None,
    plain: float | None = None,
    k: int = 4,
) -> Forecast:
    """Return predicted seconds by lane, with `k` drafts where there are some."""
    seconds = {S: speculative, A: alternative, P: plain}
    found = {
        lane: Prediction(0.1, 0.01, each, k if lane.drafts else 0)
        for lane, each in seconds.items()
        if each is not None
    }
    drafting = {
        lane: Drafting(each if k else replace(each, k=2), (0.7 if lane is S else 0.3,), False, 0.5)
        for lane, each in found.items()
        if lane.drafts
    }
    return Forecast(found, drafting)


def told(
    predicted: Forecast,
    view: RequestView = CHAT,
    present: dict[Lane, LaneView] | None = None,
    spec: PolicySpec = SPEC,
    history: ClassHistory | None = None,
    acceptance: dict[Lane, AcceptanceEstimate] | None = None,
    gathering: Gathering | None = None,
) -> Decision:
    return decide(
        view,
        present or lanes(),
        acceptance or BOTH_GOOD,
        spec,
        history or ClassHistory(),
        predicted,
        gathering,
    )


FASTEST_S = forecast(speculative=0.5, alternative=0.7, plain=1.0)
FASTEST_A = forecast(speculative=0.7, alternative=0.5, plain=1.0)
FASTEST_P = forecast(speculative=0.9, alternative=0.9, plain=0.5)


@pytest.mark.parametrize(
    ("predicted", "lane", "reason"),
    [
        (
            FASTEST_S,
            S,
            "faster speculative 500ms < alternative 700ms < plain 1000ms at measured "
            "acceptance 0.70",
        ),
        (
            FASTEST_A,
            A,
            "faster alternative 500ms < speculative 700ms < plain 1000ms at measured "
            "acceptance 0.30",
        ),
        (FASTEST_P, P, None),
        # equal costs are no reason to draft, nor to occupy the draft that others need
        (forecast(speculative=1.0, alternative=1.0, plain=1.0), P, None),
        (forecast(speculative=1.0, alternative=1.0, plain=1.2), A, None),
    ],
)
def test_the_lane_of_least_cost(predicted: Forecast, lane: Lane, reason: str | None) -> None:
    decision = told(predicted)
    assert decision.lane is lane
    assert reason is None or decision.reason == reason


def test_predictions_are_told_with_the_k_of_each() -> None:
    assert told(FASTEST_A).predicted == (
        "speculative=700ms alternative=500ms plain=1000ms k_speculative=4 k_alternative=4"
    )


@pytest.mark.parametrize(
    ("last", "predicted", "lane", "rule"),
    [
        (A, forecast(speculative=0.97, alternative=1.0, plain=2.0), A, Rule.STEADY),
        (A, forecast(speculative=0.94, alternative=1.0, plain=2.0), S, Rule.FASTER),
        (P, forecast(speculative=1.5, alternative=0.97, plain=1.0), P, Rule.STEADY),
        (None, forecast(speculative=0.97, alternative=1.0, plain=2.0), S, Rule.FASTER),
    ],
)
def test_a_class_stays_where_it_is_for_less_than_the_hysteresis(
    last: Lane | None, predicted: Forecast, lane: Lane, rule: Rule
) -> None:
    decision = told(predicted, history=ClassHistory(0, 9, last))
    assert (decision.lane, decision.rule) == (lane, rule)


@pytest.mark.parametrize(
    ("view", "spec", "present", "predicted", "lane", "rule"),
    [
        # who wants drafts gets those that are better for it
        (WANTS_ON, SPEC, lanes(), FASTEST_A, A, Rule.FASTER),
        (WANTS_ON, SPEC, lanes(), FASTEST_P, A, Rule.FASTER),
        (WANTS_ON, SPEC, lanes(A, P), FASTEST_P, A, Rule.OVERRIDE),
        (WANTS_OFF, SPEC, lanes(), FASTEST_A, P, Rule.OVERRIDE),
        (WANTS_OFF, SPEC, lanes(S, A), FASTEST_A, A, Rule.ONLY_LANE),
        (replace(CHAT, lane=S), SPEC, lanes(), FASTEST_A, S, Rule.OVERRIDE),
        (replace(WANTS_OFF, lane=A), SPEC, lanes(), FASTEST_P, A, Rule.OVERRIDE),
        # and so does a class
        (
            CHAT,
            replace(SPEC, classes={"chat": ClassPolicy(Speculation.ON)}),
            lanes(),
            FASTEST_P,
            A,
            Rule.FASTER,
        ),
        (
            CHAT,
            replace(SPEC, classes={"chat": ClassPolicy(Speculation.OFF)}),
            lanes(),
            FASTEST_A,
            P,
            Rule.CLASS,
        ),
        (replace(CHAT, constrained=True), SPEC, lanes(), FASTEST_A, P, Rule.CONSTRAINED),
        (
            replace(CHAT, constrained=True),
            replace(SPEC, constrained_lane=A),
            lanes(),
            FASTEST_S,
            A,
            Rule.CONSTRAINED,
        ),
    ],
)
def test_wishes(
    view: RequestView,
    spec: PolicySpec,
    present: dict[Lane, LaneView],
    predicted: Forecast,
    lane: Lane,
    rule: Rule,
) -> None:
    decision = told(predicted, view, present, spec)
    assert (decision.lane, decision.rule) == (lane, rule)


@pytest.mark.parametrize(
    ("present", "spec", "acceptance", "lane", "rule"),
    [
        # what closes one lane leaves the choice among the others
        (lanes(speculative={"attached": False}), SPEC, BOTH_GOOD, A, Rule.FASTER),
        (lanes(speculative={"in_flight": 9}), SPEC, BOTH_GOOD, S, Rule.FASTER),
        (
            lanes(speculative={"in_flight": 9}),
            replace(SPEC, max_speculative_concurrency=8),
            BOTH_GOOD,
            A,
            Rule.FASTER,
        ),
        (
            lanes(speculative={"in_flight": 9}, alternative={"in_flight": 9}),
            replace(SPEC, max_speculative_concurrency=8),
            BOTH_GOOD,
            P,
            Rule.CONCURRENCY,
        ),
        (
            lanes(),
            replace(SPEC, classes={"chat": ClassPolicy(acceptance_floor=0.5)}),
            {S: POOR, A: GOOD},
            A,
            Rule.FASTER,
        ),
        (
            lanes(),
            replace(SPEC, classes={"chat": ClassPolicy(acceptance_floor=0.5)}),
            {S: POOR, A: POOR},
            P,
            Rule.ACCEPTANCE,
        ),
        # the last one left takes what it must
        (lanes(S, A, speculative={"attached": False}), SPEC, BOTH_GOOD, A, Rule.DETACHED),
        (
            lanes(speculative={"experts": 8}, alternative={"experts": 8}, plain={"experts": 8}),
            SPEC,
            BOTH_GOOD,
            P,
            Rule.EXPERTS,
        ),
        # a lane without replicas is replaced by the next one by cost
        (lanes(speculative={"replicas": 0}), SPEC, BOTH_GOOD, A, Rule.DOWN),
    ],
)
def test_what_closes_a_lane(
    present: dict[Lane, LaneView],
    spec: PolicySpec,
    acceptance: dict[Lane, AcceptanceEstimate],
    lane: Lane,
    rule: Rule,
) -> None:
    decision = told(FASTEST_S, CHAT, present, spec, acceptance=acceptance)
    assert (decision.lane, decision.rule) == (lane, rule)


def test_who_wants_drafts_is_not_sent_where_there_are_none_when_its_lane_is_down() -> None:
    present = lanes(speculative={"replicas": 0})
    predicted = forecast(speculative=0.5, alternative=0.9, plain=0.6)
    assert told(predicted, WANTS_ON, present).lane is A
    assert told(predicted, CHAT, present).lane is P


def test_experts_decode_without_drafts_where_every_lane_has_some() -> None:
    present = lanes(S, A, speculative={"experts": 8}, alternative={"experts": 8})
    predicted = forecast(speculative=0.5, alternative=0.9)
    assert told(predicted, CHAT, present).k == 0
    lost = lanes(S, A, speculative={"attached": False}, alternative={"experts": 8})
    assert (told(predicted, CHAT, lost).lane, told(predicted, CHAT, lost).k) == (A, 0)
    assert told(predicted, WANTS_ON, lost).k == 4
    calibrated = replace(SPEC, measured=Measured({}))
    assert told(predicted, CHAT, present, calibrated).lane is S
    assert told(predicted, WANTS_ON, present).k is None  # the engine's own


@pytest.mark.parametrize(
    ("asked", "lane", "k"), [(None, S, None), (3, S, 3), (6, S, 4), (6, A, 6), (9, A, 8)]
)
def test_k_is_one_that_the_lane_has(asked: int | None, lane: Lane, k: int | None) -> None:
    view = replace(CHAT, k=asked, lane=lane)
    assert told(Forecast(), view).k == k
    tiers = wanted_tiers(view, SPEC, lane)
    assert max(tiers) == (k or 4)
    assert wanted_tiers(view, SPEC, P) == ()


def turns(predicted: Forecast, spec: PolicySpec, **known: object) -> list[Decision]:
    made, history = [], ClassHistory(0, 0, None)
    for _ in range(1000):
        made.append(told(predicted, CHAT, spec=spec, history=history, **known))  # type: ignore[arg-type]
        explores = made[-1].rule == Rule.EXPLORE
        history = replace(
            history,
            floored=history.floored + (explores or made[-1].rule == Rule.ACCEPTANCE),
            turns=history.turns + 1,
        )
    return made


@pytest.mark.parametrize("best", ["speculative", "alternative", "plain"])
def test_the_other_lanes_are_explored_in_turn_with_one_share(best: str) -> None:
    s, a, p = (1.0 if best == lane else 1.1 for lane in Lane)
    predicted = forecast(speculative=s, alternative=a, plain=p)
    made = turns(predicted, replace(SPEC, exploration_share=0.04))
    explored = Counter(each.lane for each in made if each.rule == Rule.EXPLORE)
    assert explored == dict.fromkeys(Lane(best).others(Lane), 20)
    assert {each.lane for each in made if each.rule != Rule.EXPLORE} == {Lane(best)}


def test_a_lane_that_would_cost_too_much_is_not_explored_and_gives_its_share_to_nobody() -> None:
    predicted = forecast(speculative=1.0, alternative=2.0, plain=1.1)
    made = turns(predicted, replace(SPEC, exploration_share=0.04, exploration_loss=0.25))
    assert Counter(each.lane for each in made if each.rule == Rule.EXPLORE) == {P: 20}


def test_drafts_of_the_own_lane_are_explored_beside_the_others() -> None:
    predicted = forecast(k=0, speculative=1.0, alternative=1.1, plain=1.1)
    made = turns(predicted, replace(SPEC, exploration_share=0.04))
    explored = Counter((each.lane, each.k) for each in made if each.rule == Rule.EXPLORE)
    assert explored == {(S, 2): 20, (A, 2): 10, (P, None): 10}


def test_lanes_under_their_floor_are_explored_in_turn() -> None:
    spec = replace(
        SPEC, exploration_share=0.04, classes={"chat": ClassPolicy(acceptance_floor=0.5)}
    )
    made = turns(FASTEST_S, spec, acceptance={S: POOR, A: POOR})
    assert Counter(each.lane for each in made) == {P: 960, S: 20, A: 20}
    # With one of them above its floor, the other is one of those that are explored.
    predicted = forecast(speculative=1.1, alternative=1.0, plain=1.1)
    made = turns(predicted, spec, acceptance={S: POOR, A: GOOD})
    assert Counter(each.lane for each in made) == {A: 960, S: 20, P: 20}


def test_a_lane_that_nothing_is_known_of_gets_some_requests_beside_two_that_are_known() -> None:
    spec = replace(SPEC, exploration_share=0.02)
    made = turns(forecast(speculative=0.5, plain=0.6), spec)
    explored = [each for each in made if "not measured yet" in each.reason]
    assert {each.lane for each in explored} == {A}
    assert len(explored) == 100
    assert {each.lane for each in made if each.rule == Rule.FASTER} == {S}
    assert {each.lane for each in turns(forecast(speculative=0.5, plain=0.6), SPEC)} == {S}


def test_before_anything_is_known_drafts_are_tried_and_then_the_rest() -> None:
    spec = replace(SPEC, exploration_share=0.02)
    assert {each.lane for each in turns(Forecast(), spec)} == {S}
    known = lanes(speculative={"measured": True})
    made = turns(Forecast(), spec, present=known)
    assert Counter(each.lane for each in made) == {S: 900, A: 50, P: 50}


@pytest.mark.parametrize(
    ("gathering", "lane", "rule"),
    [
        (Gathering(A, 9.0, 8.0), A, Rule.TOGETHER),
        (Gathering(None, 9.0, 8.0, frozenset({A, P})), A, Rule.FASTER),
        (Gathering(None, 9.0, 8.0, frozenset({S, P})), S, Rule.FASTER),
        (Gathering(None, 9.0, 8.0), S, Rule.FASTER),
    ],
)
def test_on_one_machine_all_go_to_the_lanes_that_serve_all_best(
    gathering: Gathering, lane: Lane, rule: Rule
) -> None:
    decision = told(FASTEST_S, CHAT, lanes(plain={"in_flight": 1}), gathering=gathering)
    assert (decision.lane, decision.rule) == (lane, rule)


def test_a_request_that_nobody_is_beside_goes_where_it_is_served_best() -> None:
    gathering = Gathering(A, 9.0, 8.0)
    assert told(FASTEST_S, gathering=gathering).lane is S
    # With drafts of one kind all stay together.
    one = forecast(speculative=1.0, plain=0.5)
    assert told(one, CHAT, lanes(S, P), gathering=Gathering(S, 9.0, 8.0)).rule == Rule.TOGETHER


def test_nobody_gathers_in_a_closed_lane() -> None:
    gathering = Gathering(S, 9.0, 8.0)
    present = lanes(speculative={"attached": False}, plain={"in_flight": 1})
    assert told(FASTEST_S, CHAT, present, gathering=gathering).lane is A


specs = st.builds(
    PolicySpec,
    max_speculative_concurrency=st.none() | counts,
    acceptance_floor=shares,
    acceptance_min_drafted=st.integers(0, 1000),
    exploration_share=shares,
    exploration_loss=shares,
    hysteresis=shares,
    constrained_lane=st.sampled_from(Lane),
    k_tiers=st.sampled_from([(), (0, 2, 4)]),
    alternative_k_tiers=st.sampled_from([(), (0, 8)]),
    classes=st.dictionaries(st.sampled_from(["chat", "code"]), class_policies),
)
wanted = st.builds(
    lambda view, lane: replace(view, lane=lane),
    requests,
    st.none() | st.none() | st.sampled_from(Lane),
)
histories = st.builds(
    ClassHistory,
    st.integers(0, 10**6),
    st.integers(0, 10**6),
    st.none() | st.sampled_from(Lane),
)


@st.composite
def situations(
    draw: st.DrawFn,
) -> tuple[dict[Lane, LaneView], dict[Lane, AcceptanceEstimate], Forecast]:
    present = draw(st.sets(st.sampled_from(Lane), min_size=1))
    views, found = {}, {}
    for lane in (each for each in Lane if each in present):
        views[lane] = LaneView(
            lane,
            in_flight=draw(counts),
            replicas=draw(st.integers(0, 2)),
            attached=draw(st.none() | st.booleans()) if lane.drafts else False,
            measured=draw(st.booleans()),
            experts=draw(st.sampled_from([0, 0, 8])),
        )
        low, mean, high = sorted(draw(st.tuples(shares, shares, shares)))
        found[lane] = AcceptanceEstimate("chat", mean, low, high, draw(st.floats(0, 1e6)))
    known = draw(st.sets(st.sampled_from(sorted(present))))
    s, a, p = (draw(times) if lane in known else None for lane in Lane)
    k = draw(st.sampled_from([0, 4]))
    predicted = forecast(speculative=s, alternative=a, plain=p, k=k)
    return views, found, predicted


@quick
@given(wanted, situations(), specs, histories)
def test_total_and_as_it_was_asked(
    view: RequestView,
    situation: tuple[dict[Lane, LaneView], dict[Lane, AcceptanceEstimate], Forecast],
    spec: PolicySpec,
    history: ClassHistory,
) -> None:
    present, acceptance, predicted = situation
    decision = decide(view, present, acceptance, spec, history, predicted)

    assert decision.lane in present
    assert decision.rule in set(Rule) - {Rule.SPILL}
    assert decision.k is None or decision.lane.drafts
    assert "None" not in decision.reason
    assert present[decision.lane].replicas or not any(each.replicas for each in present.values())
    up = {lane for lane in present if present[lane].replicas}
    if view.lane is not None:
        assert decision.lane is view.lane or view.lane not in up
    elif view.speculation is Speculation.ON and any(lane.drafts for lane in up):
        assert decision.lane.drafts
    elif view.speculation is Speculation.OFF and P in up:
        assert decision.lane is P
    tiers = spec.tiers(decision.lane)
    if decision.k is not None and tiers and not predicted.lanes:
        assert decision.k <= tiers[-1]


@quick
@given(wanted, situations(), specs, histories)
def test_a_dearer_lane_is_only_chosen_by_a_rule_that_says_so(
    view: RequestView,
    situation: tuple[dict[Lane, LaneView], dict[Lane, AcceptanceEstimate], Forecast],
    spec: PolicySpec,
    history: ClassHistory,
) -> None:
    present, acceptance, predicted = situation
    decision = decide(view, present, acceptance, spec, history, predicted)
    limits = {Rule.DETACHED, Rule.EXPERTS, Rule.ACCEPTANCE, Rule.CONCURRENCY}
    if decision.rule not in {Rule.FASTER, Rule.STEADY}:
        return
    ours = predicted.lanes[decision.lane].total_s
    if decision.rule == Rule.STEADY:
        assert history.lane is decision.lane
        margin = spec.of(view.workload_class).hysteresis
        ours *= 1 - (spec.hysteresis if margin is None else margin)
    dearer = [lane for lane, each in predicted.lanes.items() if each.total_s < ours * (1 - 1e-9)]
    for lane in dearer:  # then something keeps the request out of what costs less
        alone = {each: present[each] for each in present if each in (lane, P)}
        if lane.drafts and P in present and view.speculation is Speculation.AUTO:
            other = decide(view, alone, acceptance, spec, replace(history, lane=None), predicted)
            assert other.rule in {*limits, Rule.CLASS, Rule.EXPLORE, Rule.DEFAULT}, lane
