"""Which rule decides where nothing is predicted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rayspec.routing.policy import NoLane, PolicySpec
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
from tests.support.one_draft import decide
from tests.support.policies import (
    CHAT,
    CONSTRAINED,
    GOOD,
    POOR,
    SPEC,
    UNKNOWN,
    WANTS_OFF,
    WANTS_ON,
    P,
    S,
    lanes,
    of_class,
)


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


DOWN = LaneView(S, replicas=0, attached=None)
UP = LaneView(P, replicas=1, attached=False)


@pytest.mark.parametrize("view", [CHAT, WANTS_ON])
def test_a_lane_without_replicas_is_replaced_by_one_that_has_some(view: RequestView) -> None:
    decision = decide(view, {S: DOWN, P: UP}, UNKNOWN, SPEC)

    assert (decision.lane, decision.rule) == (P, Rule.DOWN)


def test_before_any_replica_reports_the_policy_chooses_as_ever() -> None:
    decision = decide(CHAT, {S: DOWN, P: replace(UP, replicas=0)}, UNKNOWN, SPEC)

    assert (decision.lane, decision.rule) == (S, Rule.DEFAULT)
