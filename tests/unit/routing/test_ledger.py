from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayspec.routing.ledger import Ledger, Ticket
from rayspec.routing.types import (
    Decision,
    EngineProfile,
    EngineSnapshot,
    Lane,
    LaneView,
    Outcome,
    Rule,
)
from tests.support.clock import Clock
from tests.support.properties import quick

SPECULATIVE = Decision(Lane.SPECULATIVE, "chat", "default")
PLAIN = Decision(Lane.PLAIN, "code", "override")
SNAPSHOT = EngineSnapshot(
    Lane.SPECULATIVE, "a", at=10.0, running=3, waiting=1, kv_usage=0.5, attached=True
)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(clock: Clock) -> Ledger:
    return Ledger(clock, expiry_s=5.0)


def test_counts_per_lane_and_class(ledger: Ledger) -> None:
    ledger.admit(SPECULATIVE)
    ledger.admit(SPECULATIVE, sequences=4)
    ledger.admit(PLAIN)

    assert ledger.in_flight(Lane.SPECULATIVE) == 5
    assert ledger.in_flight(Lane.SPECULATIVE, "chat") == 5
    assert ledger.in_flight(Lane.SPECULATIVE, "code") == 0
    assert ledger.in_flight(Lane.PLAIN, "code") == 1


def test_finishing_twice_counts_once(ledger: Ledger) -> None:
    ticket = ledger.admit(PLAIN)
    other = ledger.admit(PLAIN)
    outcome = Outcome("code", Lane.PLAIN, 0, 0, 0, 12, finished=True)

    assert ledger.finish(ticket, outcome)
    assert not ledger.finish(ticket)

    assert ticket.outcome is outcome
    assert ledger.in_flight(Lane.PLAIN) == 1
    ledger.finish(other)
    assert ledger.in_flight(Lane.PLAIN) == 0


@quick
@given(st.lists(st.tuples(st.sampled_from(Lane), st.integers(1, 5), st.booleans())))
def test_in_flight_is_the_sum_of_open_tickets(moves: list[tuple[Lane, int, bool]]) -> None:
    ledger = Ledger(Clock())
    tickets: list[Ticket] = []
    for lane, sequences, finish in moves:
        tickets.append(ledger.admit(Decision(lane, "chat", "default"), sequences))
        if finish:
            ledger.finish(tickets[len(tickets) // 2])

    for lane in Lane:
        still_open = [t for t in tickets if t.open and t.decision.lane is lane]
        assert ledger.view(lane).in_flight == sum(t.sequences for t in still_open)


def test_an_unreported_lane_is_unknown_not_detached(ledger: Ledger) -> None:
    assert ledger.view(Lane.SPECULATIVE) == LaneView(Lane.SPECULATIVE)
    assert ledger.view(Lane.SPECULATIVE).attached is None


def test_a_view_sums_the_replicas_of_its_lane(ledger: Ledger) -> None:
    ledger.observe(SNAPSHOT)
    ledger.observe(replace(SNAPSHOT, replica="b", running=5, kv_usage=0.75, attached=False))
    ledger.observe(replace(SNAPSHOT, lane=Lane.PLAIN, running=50))
    ledger.admit(SPECULATIVE)

    assert ledger.view(Lane.SPECULATIVE) == LaneView(
        Lane.SPECULATIVE,
        in_flight=1,
        running=8,
        waiting=2,
        kv_usage=0.75,
        replicas=2,
        attached=True,
    )


def test_the_newest_snapshot_of_a_replica_counts_whatever_the_order(ledger: Ledger) -> None:
    ledger.observe(replace(SNAPSHOT, at=12.0, running=7))
    ledger.observe(replace(SNAPSHOT, at=11.0, running=1))

    assert ledger.view(Lane.SPECULATIVE).running == 7


def test_reports_expire_by_our_own_clock(ledger: Ledger, clock: Clock) -> None:
    ledger.observe(replace(SNAPSHOT, at=1e9, attached=False))
    clock.advance(5.0)
    assert ledger.view(Lane.SPECULATIVE).attached is False

    clock.advance(0.1)
    assert ledger.view(Lane.SPECULATIVE) == LaneView(Lane.SPECULATIVE)


def test_a_restarted_replica_whose_clock_went_back_is_heard_after_expiry(
    ledger: Ledger, clock: Clock
) -> None:
    ledger.observe(replace(SNAPSHOT, at=1e9))
    clock.advance(6.0)
    ledger.observe(replace(SNAPSHOT, at=1.0, running=2))

    assert ledger.view(Lane.SPECULATIVE).running == 2


def test_forgetting_a_lane_leaves_the_other(ledger: Ledger) -> None:
    ledger.observe(SNAPSHOT)
    ledger.observe(replace(SNAPSHOT, lane=Lane.PLAIN))

    ledger.forget(Lane.SPECULATIVE)

    assert ledger.view(Lane.SPECULATIVE).replicas == 0
    assert ledger.view(Lane.PLAIN).replicas == 1


def test_views_show_only_lanes_that_exist(clock: Clock) -> None:
    assert list(Ledger(clock, [Lane.PLAIN]).views()) == [Lane.PLAIN]


def test_history_counts_requests_that_met_the_floor(ledger: Ledger) -> None:
    for rule in (Rule.ACCEPTANCE, Rule.EXPLORE, Rule.CONCURRENCY, Rule.DEFAULT):
        ledger.remember("chat", Decision(Lane.PLAIN, "chat", f"{rule} 0.10 < 0.40"))

    assert ledger.history("chat").floored == 2
    assert ledger.history("code").floored == 0


def test_memory_of_made_up_classes_is_bounded(ledger: Ledger) -> None:
    for number in range(3000):
        name = f"made-up-{number}"
        ticket = ledger.admit(Decision(Lane.PLAIN, name, "acceptance 0.10 < 0.40"))
        ledger.remember(name, ticket.decision)
        ledger.finish(ticket)

    assert len(ledger._in_flight) == 0
    assert len(ledger._histories) <= 1024


def test_history_knows_where_a_class_is_and_how_often_it_was_measured(ledger: Ledger) -> None:
    for lane, rule in (
        (Lane.SPECULATIVE, Rule.FASTER),
        (Lane.PLAIN, Rule.EXPLORE),
        (Lane.PLAIN, Rule.OVERRIDE),
    ):
        ledger.remember("chat", Decision(lane, "chat", f"{rule} for a reason"))

    history = ledger.history("chat")
    assert (history.turns, history.lane) == (2, Lane.SPECULATIVE)


def test_context_is_weighed_by_the_running_sequences(ledger: Ledger) -> None:
    ledger.observe(replace(SNAPSHOT, running=1, context=1000.0))
    ledger.observe(replace(SNAPSHOT, replica="b", running=3, context=200.0))

    assert ledger.view(Lane.SPECULATIVE).context == 400.0


def test_prompts_are_a_backlog_until_an_engine_could_tell(ledger: Ledger, clock: Clock) -> None:
    first = ledger.admit(SPECULATIVE, prompt_tokens=100)
    second = ledger.admit(SPECULATIVE, prompt_tokens=40)
    assert ledger.view(Lane.SPECULATIVE).backlog == 140
    assert ledger.view(Lane.PLAIN).backlog == 0

    ledger.start(second)
    assert ledger.view(Lane.SPECULATIVE).backlog == 100
    ledger.observe(replace(SNAPSHOT, backlog=300))
    assert ledger.view(Lane.SPECULATIVE).backlog == 300

    ledger.observe(replace(SNAPSHOT, backlog=0))
    clock.advance(1.5)
    assert ledger.view(Lane.SPECULATIVE).backlog == 0
    third = ledger.admit(SPECULATIVE, prompt_tokens=7)
    ledger.finish(third)
    assert ledger.view(Lane.SPECULATIVE).backlog == 0
    assert first.open


def test_profiles_and_experts_of_a_lane(ledger: Ledger) -> None:
    profile = EngineProfile(experts=8)
    ledger.observe(replace(SNAPSHOT, profile=profile))
    ledger.observe(replace(SNAPSHOT, replica="b"))

    assert ledger.profiles(Lane.SPECULATIVE) == (profile,)
    assert ledger.profiles(Lane.PLAIN) == ()
    assert ledger.view(Lane.SPECULATIVE).experts == 8


def test_loads_are_those_that_decisions_see(ledger: Ledger) -> None:
    ledger.observe(SNAPSHOT)
    ledger.admit(PLAIN)

    assert ledger.loads() == {Lane.SPECULATIVE: 4, Lane.PLAIN: 1}
