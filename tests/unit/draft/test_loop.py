from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from rayspec.draft.base import DraftRequest
from rayspec.draft.counters import DraftCounters
from rayspec.draft.loop import StepLoop
from rayspec.draft.mirror import DraftSequence
from rayspec.errors import LinkClosed
from rayspec.link.protocol import T2D
from tests.support.link_rig import WAIT_S, CountingDrafter

STEP = T2D(1, 1, 0, 4, ())


class FakePeer:
    """A target that has one step ready, or fails."""

    def __init__(self, *tokens: int, failure: Exception | None = None) -> None:
        self.gone = threading.Event()
        self.released = threading.Event()
        self.answered = threading.Event()
        self.mirror: list[DraftSequence] = []
        self.drafts: list[list[int]] = []
        self._due: T2D | None = STEP
        self._failure = failure
        self._sequences = [DraftSequence(0, 1, 2, 0.0, None, [token]) for token in tokens]

    def advance(self) -> T2D | None:
        if self._failure is not None:
            raise self._failure
        due, self._due = self._due, None
        return due

    def requests(self, step: T2D) -> list[DraftRequest]:
        return [DraftRequest(sequence, 2) for sequence in self._sequences]

    def reply(
        self, step: T2D, requests: Sequence[DraftRequest], drafts: Sequence[list[int]], took_us: int
    ) -> None:
        self.drafts = list(drafts)
        self.answered.set()

    def let_go(self) -> bool:
        self.mirror.clear()
        return True

    def leave(self) -> None:
        self.gone.set()


class Busy(CountingDrafter):
    """Always has something to prepare, and may fail to draft."""

    def __init__(self) -> None:
        super().__init__()
        self.order: list[str] = []
        self.fails = False
        self.prepared = threading.Event()

    def draft(self, requests: Sequence[DraftRequest]) -> list[list[int]]:
        self.order.append("draft")
        if self.fails:
            raise ValueError("out of memory")
        return super().draft(requests)

    def work(self) -> bool:
        self.order.append("work")
        self.prepared.set()
        return len(self.order) < 50


@pytest.fixture
def drafter() -> Busy:
    return Busy()


@pytest.fixture
def counters() -> DraftCounters:
    return DraftCounters()


@pytest.fixture
def loop(drafter: Busy, counters: DraftCounters) -> Iterator[StepLoop]:
    loop = StepLoop(drafter, counters)
    yield loop
    loop.stop()
    loop.stop()
    assert drafter.closed


def serve(loop: StepLoop, *peers: FakePeer) -> None:
    """Let all peers wait before the loop sees the first."""
    for peer in peers:
        fake: Any = peer
        loop.add(fake)
    loop.start()


def test_targets_that_wait_together_share_one_round(
    loop: StepLoop, drafter: Busy, counters: DraftCounters
) -> None:
    one, two = FakePeer(10), FakePeer(20, 30)
    serve(loop, one, two)
    assert one.answered.wait(WAIT_S)
    assert two.answered.wait(WAIT_S)
    assert drafter.batches == [3]
    assert (one.drafts, two.drafts) == ([[11, 12]], [[21, 22], [31, 32]])
    assert (counters.rounds, counters.drafted_tokens) == (1, 6)


@pytest.mark.parametrize("failure", [LinkClosed("gone"), RuntimeError("bug")])
def test_a_target_that_fails_leaves_and_the_others_are_served(
    loop: StepLoop, failure: Exception
) -> None:
    bad, good = FakePeer(failure=failure), FakePeer(1)
    serve(loop, bad, good)
    assert good.answered.wait(WAIT_S)
    assert bad.gone.is_set()
    fake: Any = bad
    loop.release(fake)
    assert bad.released.is_set()
    assert loop.live() == (1, 0)


def test_a_drafter_that_fails_still_answers(
    loop: StepLoop, drafter: Busy, counters: DraftCounters
) -> None:
    drafter.fails = True
    peer = FakePeer(1)
    serve(loop, peer)
    assert peer.answered.wait(WAIT_S)
    assert peer.drafts == [[]]
    assert counters.errors == 1
    assert loop.alive(WAIT_S)


def test_steps_come_before_preparation(loop: StepLoop, drafter: Busy) -> None:
    peer = FakePeer(1)
    serve(loop, peer)
    assert peer.answered.wait(WAIT_S)
    assert drafter.prepared.wait(WAIT_S)
    assert drafter.order[:2] == ["draft", "work"]


def test_a_stuck_drafter_is_seen(loop: StepLoop, drafter: Busy) -> None:
    drafter.gate.clear()
    serve(loop, FakePeer(1))
    assert drafter.entered.wait(WAIT_S)
    assert loop.alive(WAIT_S)
    assert not loop.alive(-1.0)
    drafter.gate.set()


def test_what_start_raises_reaches_the_caller() -> None:
    class Broken(CountingDrafter):
        def start(self) -> None:
            raise ValueError("no such model")

    loop = StepLoop(Broken(), DraftCounters())
    with pytest.raises(ValueError, match="no such model"):
        loop.start()
    assert not loop.alive(WAIT_S)
