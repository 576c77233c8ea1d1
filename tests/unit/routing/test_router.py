from __future__ import annotations

from dataclasses import replace

import pytest

from rayspec.routing import (
    ClassPolicy,
    EngineSnapshot,
    Lane,
    Outcome,
    PolicySpec,
    RequestView,
    Router,
    Rule,
    Speculation,
)
from rayspec.routing.ledger import Ticket
from rayspec.routing.names import CANDIDATE
from rayspec.routing.trial import State, TrialSpec
from tests.support.clock import Clock
from tests.support.one_draft import BOTH

S, P = Lane.SPECULATIVE, Lane.PLAIN
CHAT = RequestView("chat")
SPEC = PolicySpec(max_speculative_concurrency=2, acceptance_min_drafted=100)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def router(clock: Clock) -> Router:
    return Router(SPEC, BOTH, clock, known_classes=["chat"])


def finish(router: Router, ticket: Ticket, drafted: int = 0, accepted: int = 0) -> None:
    decision = ticket.decision
    router.finish(
        ticket,
        Outcome(decision.workload_class, decision.lane, drafted, drafted, accepted, 9, True),
    )


def test_requests_overflow_to_the_plain_lane_and_come_back(router: Router) -> None:
    tickets = [router.admit(CHAT) for _ in range(4)]
    assert [t.decision.lane for t in tickets] == [S, S, P, P]
    assert tickets[3].decision.reason == "concurrency 2 >= 2"

    finish(router, tickets[0])
    assert router.admit(CHAT).decision.lane is S


def test_a_request_of_many_sequences_counts_as_many(router: Router) -> None:
    router.admit(replace(CHAT, sequences=2))

    assert router.admit(CHAT).decision.rule == Rule.CONCURRENCY


def test_another_ingress_s_load_is_seen_through_the_engine(router: Router) -> None:
    router.observe(EngineSnapshot(S, "a", 1.0, 1, 1, 0.1, attached=True))
    router.observe(EngineSnapshot(P, "b", 1.0, 0, 0, 0.0, attached=False))

    assert router.admit(CHAT).decision.rule == Rule.CONCURRENCY


def test_a_poor_class_leaves_is_explored_and_returns_when_it_got_better(
    router: Router, clock: Clock
) -> None:
    finish(router, router.admit(CHAT), drafted=1000, accepted=50)

    lanes = []
    for _ in range(100):
        ticket = router.admit(CHAT)
        lanes.append(ticket.decision.lane)
        finish(router, ticket, *((10, 1) if ticket.decision.lane is S else (0, 0)))
    assert lanes.count(S) == 2
    assert router.admit(RequestView("code")).decision.lane is S

    clock.advance(5 * SPEC.acceptance_half_life_s)
    assert router.admit(CHAT).decision.rule == Rule.DEFAULT


def test_classes_that_share_an_estimate_share_its_exploration(router: Router) -> None:
    for number in range(200):
        router.acceptance.observe(Outcome(f"made-up-{number}", S, 1000, 1000, 10, 9, True))

    tickets = [router.admit(RequestView(f"new-{number}")) for number in range(100)]

    assert [t.decision.rule for t in tickets].count(Rule.EXPLORE) == 2


def test_finishing_twice_teaches_once(router: Router) -> None:
    ticket = router.admit(CHAT)
    finish(router, ticket, 100, 50)
    finish(router, ticket, 100, 50)

    assert router.acceptance.estimate("chat").drafted == 100
    assert router.ledger.in_flight(S) == 0


def test_an_abandoned_request_is_counted_out(router: Router) -> None:
    router.finish(router.admit(CHAT))

    assert router.ledger.in_flight(S) == 0
    assert router.acceptance.estimates() == []


def test_spill_moves_the_count_with_the_request(router: Router) -> None:
    first = router.admit(replace(CHAT, sequences=2))

    second = router.spill(first, "is full")

    assert second is not None
    assert second.decision.reason == "spill speculative lane is full"
    assert (router.ledger.in_flight(S), router.ledger.in_flight(P)) == (0, 2)
    router.finish(first)
    router.finish(second)
    assert (router.ledger.in_flight(S), router.ledger.in_flight(P)) == (0, 0)


def test_who_wants_no_drafts_has_none_after_a_spill(clock: Clock) -> None:
    router = Router(replace(SPEC, classes={"mine": ClassPolicy(Speculation.OFF)}), BOTH, clock)
    for view in (replace(CHAT, speculation=Speculation.OFF), replace(CHAT, workload_class="mine")):
        moved = router.spill(router.admit(view), "is down")
        assert moved is not None
        assert (moved.decision.lane, moved.decision.k) == (S, 0)


def test_spill_goes_nowhere_twice(router: Router, clock: Clock) -> None:
    moved = router.spill(router.admit(CHAT), "is full")
    assert moved is not None
    assert router.spill(moved, "is full") is None
    alone = Router(SPEC, [P], clock)
    assert alone.spill(alone.admit(CHAT), "is full") is None


def test_spill_after_the_ticket_was_settled_counts_once(router: Router) -> None:
    ticket = router.admit(CHAT)
    router.finish(ticket)

    assert router.spill(ticket, "is down") is not None
    assert (router.ledger.in_flight(S), router.ledger.in_flight(P)) == (0, 1)


def test_configured_classes_have_a_place_of_their_own(clock: Clock) -> None:
    router = Router(replace(SPEC, classes={"mine": ClassPolicy()}), BOTH, clock)
    for number in range(200):
        router.acceptance.observe(Outcome(f"made-up-{number}", S, 10, 10, 1, 9, True))
    router.acceptance.observe(Outcome("mine", S, 10, 10, 10, 9, True))

    assert router.acceptance.estimate("mine").mean == 1.0


def test_what_brings_no_sequence_is_no_load(router: Router) -> None:
    router.admit(RequestView("chat", sequences=0))

    view = router.ledger.view(S)
    assert (view.in_flight, view.backlog) == (0, 0)


def test_a_request_asks_for_the_engine_s_longest_draft_unless_told(clock: Clock) -> None:
    router = Router(replace(SPEC, k_tiers=(0, 2, 5)), BOTH, clock)

    asked = [router.asked_k(router.admit(replace(CHAT, k=k)).decision) for k in (None, 2)]
    assert asked == [5, 2]
    assert router.asked_k(router.admit(CHAT).decision) == 0  # in the plain lane


def snapshot(*, candidate: bool | None, at: float = 1.0) -> EngineSnapshot:
    return EngineSnapshot(S, "1", at, 0, 0, 0.0, attached=True, candidate=candidate)


def test_a_share_of_what_drafts_tries_a_new_draft_where_it_is_attached(clock: Clock) -> None:
    router = Router(SPEC, (S,), clock, trial=TrialSpec(share=0.5))
    assert router.admit(CHAT).decision.draft is None
    router.observe(snapshot(candidate=False))
    assert router.admit(CHAT).decision.draft is None
    router.observe(snapshot(candidate=True, at=2.0))
    drafts = [router.admit(CHAT).decision.draft for _ in range(4)]
    assert sorted(drafts, key=str) == [None, None, CANDIDATE, CANDIDATE]
    asked = replace(CHAT, k=0)
    assert [router.admit(asked).decision.draft for _ in range(4)] == [None] * 4


def test_only_the_draft_that_serves_teaches_what_to_expect(clock: Clock) -> None:
    router = Router(SPEC, (S,), clock, trial=TrialSpec(share=0.5))
    router.observe(snapshot(candidate=True))
    for accepted_by_new in (0, 10):
        for ticket in [router.admit(CHAT) for _ in range(20)]:
            named = ticket.decision.draft
            accepted = accepted_by_new if named else 5
            router.finish(ticket, Outcome("chat", S, 10, 10, accepted, 20, True, draft=named))
    assert router.acceptance.estimate("chat").mean == 0.5
    assert router.trial is not None
    assert router.trial.requests() == (20, 20)
    router.trial.state = State.PROMOTED
    assert {router.admit(CHAT).decision.draft for _ in range(4)} == {CANDIDATE}
    ticket = router.admit(CHAT)
    router.finish(ticket, Outcome("chat", S, 10, 10, 10, 20, True, draft=CANDIDATE))
    learnt = router.acceptance.estimate("chat").mean
    assert learnt is not None
    assert learnt > 0.5
