"""Both ends over real sockets and gloo, in one process, with a drafter that the test holds."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from rayspec.draft.server import DraftServer
from rayspec.link.spec import LinkState
from tests.support.link_rig import SPEC, WAIT_S, CountingDrafter, Target, draft_server, wait_until


@pytest.fixture
def drafter() -> CountingDrafter:
    return CountingDrafter()


@pytest.fixture
def server(drafter: CountingDrafter) -> Iterator[DraftServer]:
    server = draft_server(drafter)
    yield server
    drafter.gate.set()
    server.close()


@pytest.fixture
def target(server: DraftServer) -> Iterator[Target]:
    target = Target()
    target.attach(server.admit(SPEC.hello(1)))
    yield target
    target.link.close()


def test_requests_come_go_and_continue(target: Target, drafter: CountingDrafter) -> None:
    target.begin(0, 10)
    target.begin(1, 20, 21)
    assert target.step() == {0: [11, 12, 13, 14], 1: [22, 23, 24, 25]}
    assert target.step(s0=[11, 12], s1=[22]) == {0: [13, 14, 15, 16], 1: [23, 24, 25, 26]}
    target.end(0)
    target.begin(2, 30)
    assert target.step(s1=[23], k_want=2) == {1: [24, 25], 2: [31, 32]}
    assert target.step(s1=[24], s2=[31], k_want=0) == {}
    assert target.step(s1=[25]) == {1: [26, 27, 28, 29], 2: [32, 33, 34, 35]}
    stats = target.link.stats()
    assert (stats.sent, stats.received, stats.misses, stats.resyncs) == (5, 4, 0, 0)
    assert 0 < stats.rtt_p50_us <= stats.rtt_p99_us
    assert {sequence.slot for sequence in drafter.live} == {1, 2}


def test_a_slot_is_reused_by_generation(target: Target) -> None:
    for base in range(10, 60, 10):
        target.begin(0, base)
        assert target.step() == {0: [base + i for i in range(1, 5)]}
        target.end(0)
    assert target.link.stats().resyncs == 0


def test_per_request_k(target: Target) -> None:
    target.begin(0, 10)
    target.begin(1, 20)
    assert target.step() == {0: [11, 12, 13, 14], 1: [21, 22, 23, 24]}
    target.link.set_k(1, target.requests[1][0], 1)
    assert target.step() == {0: [11, 12, 13, 14], 1: [21]}
    target.link.set_k(1, target.requests[1][0], 0)
    assert target.step(s1=[21]) == {0: [11, 12, 13, 14], 1: []}


def test_a_slow_draft_costs_few_deadlines_and_recovers(
    server: DraftServer, drafter: CountingDrafter
) -> None:
    target = Target(replace(SPEC, deadline_s=0.2))
    target.attach(server.admit(SPEC.hello(1)))
    drafter.gate.clear()
    target.begin(0, 10)
    assert target.step() is None
    assert target.link.stats().lagging
    for token in range(11, 31):
        assert target.step(s0=[token]) is None
    stats = target.link.stats()
    assert (stats.misses, stats.skipped) == (5, 16)  # the steps 1, 3, 6, 11 and 20 waited
    drafter.gate.set()
    wait_until(lambda: server.stats().frames == 21, "the draft to catch up")
    answers: list[dict[int, list[int]] | None] = []

    def caught_up() -> bool:
        newest = target.requests[0][1][-1] + 1
        answers.append(target.step(s0=[newest]))
        return answers[-1] == {0: [newest + 1 + i for i in range(4)]}

    wait_until(caught_up, "an answer in time")
    stats = target.link.stats()
    assert stats.state is LinkState.READY
    assert (stats.resyncs, stats.deaths) == (0, 0)
    target.link.close()


def test_late_frames_of_an_old_draft_are_dropped(
    target: Target, server: DraftServer, drafter: CountingDrafter
) -> None:
    """The old draft is in the middle of a round while the target moves to another one."""
    target.begin(0, 10)
    drafter.gate.clear()
    stepping = threading.Thread(target=target.step)
    stepping.start()
    assert drafter.entered.wait(WAIT_S)
    other_drafter = CountingDrafter()
    other = draft_server(other_drafter)
    target.attach(other.admit(SPEC.hello(2)))
    stepping.join(WAIT_S)
    assert target.link.stats().epoch == 2
    assert target.step() == {0: [11, 12, 13, 14]}
    drafter.gate.set()
    wait_until(lambda: server.stats().links == 0, "release by the old draft")
    assert drafter.live == set()
    for token in range(11, 20):
        assert target.step(s0=[token]) == {0: [token + 1 + i for i in range(4)]}
    assert target.link.stats().resyncs == 0
    target.link.close()
    other.close()
    assert other_drafter.live == set()


def test_one_draft_serves_two_targets(target: Target, server: DraftServer) -> None:
    second = Target(replace(SPEC, slots=2, k_max=2))
    second.attach(server.admit(second.spec.hello(5)))
    target.begin(0, 10)
    second.begin(0, 50)
    assert target.step() == {0: [11, 12, 13, 14]}
    assert second.step(k_want=2) == {0: [51, 52]}
    assert (server.stats().links, server.stats().sequences) == (2, 2)
    second.link.close()
    wait_until(lambda: server.stats().links == 1, "release")
    assert target.step(s0=[11]) == {0: [12, 13, 14, 15]}
    assert server.stats().sequences == 1


def test_a_wrong_checksum_brings_everything_again(target: Target, server: DraftServer) -> None:
    target.begin(0, 10)
    assert target.step() is not None
    target.requests[0][1].append(77)  # a token that the draft never hears of
    wait_until(
        lambda: (
            target.step(s0=[target.requests[0][1][-1] + 1])
            == {0: [target.requests[0][1][-1] + 1 + i for i in range(4)]}
        ),
        "agreement",
    )
    assert (server.stats().mismatches, target.link.stats().resyncs) == (1, 1)
    assert target.step(s0=[1]) == {0: [2, 3, 4, 5]}


def test_an_unknown_slot_is_added_again(target: Target, server: DraftServer) -> None:
    target.begin(0, 10)
    target.begin(1, 20)
    assert target.step() is not None
    target.link.delete(1, target.requests[1][0])  # and goes on telling it
    wait_until(lambda: (target.step() or {}).get(1) == [21, 22, 23, 24], "drafts for the lost slot")
    stats = server.stats()
    assert stats.nacks >= 1
    assert target.link.stats().state is LinkState.READY


def test_a_row_too_long_for_a_frame_is_added_again(target: Target) -> None:
    target.begin(0, 10)
    assert target.step() is not None
    target.step(s0=[11, 12, 13, 14, 15, 16])
    wait_until(lambda: target.step() == {0: [17, 18, 19, 20]}, "agreement")


def test_what_is_told_before_taking_over_a_fresh_link_is_not_sent(server: DraftServer) -> None:
    target = Target()
    target.attach(server.admit(SPEC.hello(1)))
    target.begin(0, 10)
    assert target.link.exchange([], 4, 0) is None
    assert server.stats().frames == 0
    assert target.step() == {0: [11, 12, 13, 14]}
    target.link.close()
