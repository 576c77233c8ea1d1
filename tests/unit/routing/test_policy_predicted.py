"""What is decided where engines have measured, so that the lanes' times are predicted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rayspec.routing.curves import Measured
from rayspec.routing.policy import ClassPolicy, PolicySpec, wanted_tiers
from rayspec.routing.types import (
    ClassHistory,
    Decision,
    Forecast,
    Lane,
    LaneView,
    RequestView,
    Rule,
    Speculation,
)
from tests.support.one_draft import decide
from tests.support.policies import (
    CHAT,
    CONSTRAINED,
    GOOD,
    POOR,
    SPEC,
    UNKNOWN,
    WANTS_ON,
    P,
    S,
    forecast,
    lanes,
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
