from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Any

import pytest
import torch

from rayspec.draft.counters import DraftCounters
from rayspec.draft.peer import Peer
from rayspec.errors import LinkClosed, LinkError
from rayspec.link.protocol import (
    ALL_SLOTS,
    D2T,
    T2D,
    Add,
    Announce,
    Bye,
    Delete,
    FrameShape,
    Hello,
    Message,
    Nack,
    Ping,
    Pong,
    SetK,
    StepRow,
)
from tests.support.link_rig import CountingDrafter

HELLO = Hello(3, 2, slots=4, k_max=4, vocab_size=50, max_len=40, tokenizer_hash="t")
SHAPE = FrameShape(4, 4)


class FakeControl:
    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.inbox: deque[Message | None] = deque()

    def send(self, message: Message) -> None:
        self.sent.append(message)

    def receive(self, timeout_s: float) -> Message | None:
        if not self.inbox:
            raise LinkClosed("end of the test")
        return self.inbox.popleft()

    def interrupt(self) -> None:
        pass


class FakeTransport:
    q = None

    def __init__(self) -> None:
        self.mailbox: deque[torch.Tensor] = deque()
        self.sent: list[D2T] = []
        self.announced = 0

    def announce(self) -> None:
        self.announced += 1

    def send(self, frame: torch.Tensor, q: torch.Tensor | None = None) -> None:
        self.sent.append(D2T.unpack(frame, SHAPE))

    def recv(self, timeout_s: float) -> torch.Tensor | None:
        return self.mailbox.popleft() if self.mailbox else None

    def abort(self) -> None:
        pass


class Rig:
    def __init__(self, hello: Hello = HELLO) -> None:
        self.control, self.transport, self.counters = (
            FakeControl(),
            FakeTransport(),
            DraftCounters(),
        )
        self.drafter = CountingDrafter()
        control: Any = self.control
        self.peer = Peer(control, self.transport, hello, self.drafter, self.counters)

    def say(self, *messages: Message, alive: bool = True) -> None:
        """Let messages arrive on the control channel."""
        self.control.inbox += messages
        with pytest.raises(LinkClosed, match="end of the test"):
            self.peer.listen(lambda: None, lambda: alive, timeout_s=60.0)

    def tell(
        self, step: int, *rows: StepRow, cseq: int = 0, epoch: int = 3, k: int = 4, **more: int
    ) -> None:
        """Let a step arrive."""
        self.transport.mailbox.append(T2D(epoch, step, cseq, k, rows, **more).pack(SHAPE))

    def tokens(self, slot: int) -> list[int]:
        (live,) = [sequence for sequence in self.drafter.live if sequence.slot == slot]
        return live.tokens


@pytest.fixture
def rig() -> Rig:
    return Rig()


def add(cseq: int, slot: int, *tokens: int, gen: int = 1, after: int = 0) -> Add:
    return Add(cseq, slot, gen, 4, 0.0, None, tokens, after)


def test_the_path_hears_of_frames_on_their_way(rig: Rig) -> None:
    rig.say(Announce(1, 0, 1, 4), Announce(2, 0, 1, 4))
    assert rig.transport.announced == 2


def test_of_the_steps_that_wait_only_the_newest_is_answered(rig: Rig) -> None:
    rig.say(add(1, 0, 10))
    for step in range(1, 21):
        rig.tell(step, StepRow(0, 1, (step,)), cseq=1)
    newest = rig.peer.advance()
    assert newest is not None
    assert newest.step == 20
    assert rig.tokens(0) == [10, *range(1, 21)]
    assert rig.peer.advance() is None
    requests = rig.peer.requests(newest)
    rig.peer.reply(newest, requests, rig.drafter.draft(requests), 12)
    assert rig.transport.sent == [D2T(3, 20, 12, [StepRow(0, 1, (21, 22, 23, 24))])]


def test_over_nccl_every_step_that_wants_drafts_is_answered_once() -> None:
    rig = Rig(replace(HELLO, transport="nccl"))
    rig.say(add(1, 0, 10))
    rig.tell(1, StepRow(0, 1, (11,)), cseq=1)
    rig.tell(2, StepRow(0, 1, (12,)), cseq=1, k=0)
    rig.tell(3, StepRow(0, 1, (13,)), cseq=1)
    rig.tell(4, StepRow(0, 1, (14,)), cseq=2)
    assert rig.peer.advance() is None  # the newest waits for its messages
    assert [(reply.step, reply.rows[0].tokens) for reply in rig.transport.sent] == [
        (1, ()),
        (3, ()),
    ]
    rig.say(SetK(2, 0, 1, 2))
    newest = rig.peer.advance()
    assert newest is not None
    requests = rig.peer.requests(newest)
    rig.peer.reply(newest, requests, rig.drafter.draft(requests), 1)
    assert [reply.step for reply in rig.transport.sent] == [1, 3, 4]
    rig.tell(5, StepRow(0, 1), cseq=2, k=0)
    assert rig.peer.advance() is None
    assert rig.tokens(0) == [10, 11, 12, 13, 14]


def test_a_step_waits_for_its_messages(rig: Rig) -> None:
    rig.say(add(1, 0, 10))
    rig.tell(1, StepRow(0, 1, (11,)), cseq=1)
    rig.tell(2, StepRow(0, 1, (12,)), StepRow(1, 1), cseq=2)
    assert rig.peer.advance() is None
    assert rig.tokens(0) == [10, 11]
    rig.say(add(2, 1, 20))
    newest = rig.peer.advance()
    assert newest is not None
    assert newest.step == 2
    assert rig.tokens(0) == [10, 11, 12]
    assert rig.control.sent == []


def test_a_message_does_not_overtake_the_steps_before_it(rig: Rig) -> None:
    rig.say(add(1, 0, 10), Delete(2, 0, 1, after=1), add(3, 0, 30, gen=2, after=1))
    assert rig.peer.advance() is None
    assert rig.tokens(0) == [10]
    rig.tell(1, StepRow(0, 1, (11,)), cseq=1)
    assert rig.peer.advance() is not None
    assert rig.tokens(0) == [30]
    assert rig.control.sent == []


def test_messages_without_a_step_are_applied_at_once(rig: Rig) -> None:
    rig.say(add(1, 0, 10), add(2, 1, 20))
    assert rig.peer.advance() is None
    assert len(rig.drafter.live) == 2


def test_rows_without_drafts_say_so(rig: Rig) -> None:
    rig.say(add(1, 0, 10))
    rig.tell(1, StepRow(0, 1), StepRow(2, 9), cseq=1)
    newest = rig.peer.advance()
    assert newest is not None
    requests = rig.peer.requests(newest)
    rig.peer.reply(newest, requests, [[11]], 1)
    assert rig.transport.sent[0].rows == [StepRow(0, 1, (11,)), StepRow(2, 9, ())]
    assert [(nack.slot, nack.gen) for nack in rig.control.sent if isinstance(nack, Nack)] == [
        (2, 9)
    ]
    assert rig.counters.nacks == 1


def test_a_wrong_checksum_is_counted_and_told(rig: Rig) -> None:
    rig.say(add(1, 0, 10))
    rig.tell(1, StepRow(0, 1), cseq=1, checksum=123)
    assert rig.peer.advance() is not None
    assert isinstance(rig.control.sent[0], Nack)
    assert rig.control.sent[0].slot == ALL_SLOTS
    assert (rig.counters.nacks, rig.counters.mismatches) == (1, 1)


@pytest.mark.parametrize("step", [0, 2])
def test_steps_out_of_order_end_the_link(rig: Rig, step: int) -> None:
    rig.tell(step)
    with pytest.raises(LinkError, match=f"step {step} after step 0"):
        rig.peer.advance()


def test_steps_of_another_epoch_are_dropped(rig: Rig) -> None:
    rig.tell(7, epoch=2)
    assert rig.peer.advance() is None
    rig.tell(1)
    assert rig.peer.advance() is not None


def test_a_gap_between_messages_ends_the_link(rig: Rig) -> None:
    rig.say(add(1, 0, 10), add(3, 1, 20))
    with pytest.raises(LinkError, match="control message 3 after 1"):
        rig.peer.advance()


def test_pings_are_answered_unless_the_loop_is_stuck(rig: Rig) -> None:
    rig.say(Ping(1))
    rig.say(Ping(2), alive=False)
    assert rig.control.sent == [Pong(1)]


@pytest.mark.parametrize(
    ("last", "why"), [(Bye("leaving"), "leaving"), (Pong(1), "unexpected Pong")]
)
def test_the_listener_ends_with_the_target(rig: Rig, last: Message, why: str) -> None:
    rig.control.inbox.append(last)
    with pytest.raises(LinkError, match=why):
        rig.peer.listen(lambda: None, lambda: True, timeout_s=60.0)


def test_a_silent_target_is_let_go(rig: Rig) -> None:
    rig.control.inbox.append(None)
    with pytest.raises(LinkClosed, match=r"silent for -1\.0 s"):
        rig.peer.listen(lambda: None, lambda: True, timeout_s=-1.0)
