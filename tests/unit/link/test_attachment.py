from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from rayspec.errors import LinkClosed, LinkError
from rayspec.link.attachment import Attachment
from rayspec.link.counters import LinkCounters
from rayspec.link.path import host_path
from rayspec.link.protocol import (
    ALL_SLOTS,
    D2T,
    T2D,
    Add,
    Bye,
    Delete,
    Message,
    Nack,
    Ping,
    Pong,
    Ready,
    StepRow,
)
from rayspec.link.spec import LinkSpec

SPEC = LinkSpec(
    slots=4,
    k_max=4,
    vocab_size=100,
    max_len=64,
    tokenizer_hash="t",
    deadline_s=0.05,
    ping_interval_s=0.01,
    pong_timeout_s=0.05,
)
EPOCH = 7


class FakeControl:
    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.inbox: deque[Message | LinkError | None] = deque()
        self.interrupted = False

    def send(self, message: Message) -> None:
        self.sent.append(message)

    def receive(self, timeout_s: float) -> Message | None:
        next_one = self.inbox.popleft() if self.inbox else LinkClosed("end of the test")
        if isinstance(next_one, LinkError):
            raise next_one
        return next_one

    def interrupt(self) -> None:
        self.interrupted = True

    def close(self) -> None:
        self.interrupted = True


class FakeTransport:
    """Answers each step with the frames that `script` has for it."""

    def __init__(self) -> None:
        self.steps: list[T2D] = []
        self.script: dict[int, list[D2T]] = {}
        self.mailbox: deque[torch.Tensor] = deque()

    q: torch.Tensor | None = None

    def announce(self) -> None:
        pass

    def send(self, frame: torch.Tensor, q: torch.Tensor | None = None) -> None:
        step = T2D.unpack(frame, SPEC.shape)
        self.steps.append(step)
        self.mailbox.extend(reply.pack(SPEC.shape) for reply in self.script.get(step.step, ()))

    def recv(self, timeout_s: float) -> torch.Tensor | None:
        return self.mailbox.popleft() if self.mailbox else None

    def abort(self) -> None:
        pass


class Rig:
    def __init__(self) -> None:
        self.control = FakeControl()
        self.transport = FakeTransport()
        self.counters = LinkCounters()
        control: Any = self.control
        path = host_path(self.transport, SPEC, EPOCH, self.counters)
        self.attachment = Attachment(control, path, EPOCH, SPEC, self.counters)

    def late(self, reply: D2T) -> None:
        self.transport.mailbox.append(reply.pack(SPEC.shape))

    def exchange(
        self, rows: Sequence[StepRow] = (StepRow(1, 5, (3,)),), k_want: int = 4
    ) -> dict[int, list[int]] | None:
        return self.attachment.exchange(rows, k_want, None)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def reply(step: int, *rows: StepRow, epoch: int = EPOCH) -> D2T:
    return D2T(epoch, step, 1500, rows)


def test_an_answer_in_time(rig: Rig) -> None:
    rig.transport.script[1] = [reply(1, StepRow(1, 5, (8, 9)))]
    assert rig.exchange() == {1: [8, 9]}
    assert (rig.counters.received, rig.counters.misses) == (1, 0)
    assert rig.counters.draft.ewma_us == 1500
    assert rig.counters.round_trip.ewma_us > 0


def test_replies_of_another_epoch_or_step_are_dropped(rig: Rig) -> None:
    good = reply(1, StepRow(1, 5, (8,)))
    rig.transport.script[1] = [
        reply(1, StepRow(1, 5, (7,)), epoch=EPOCH - 1),
        reply(0, StepRow(1, 5, (7,))),
        reply(2, StepRow(1, 5, (7,))),
        good,
    ]
    assert rig.exchange() == {1: [8]}
    assert rig.counters.stale == 3


def test_rows_of_another_generation_or_vocabulary_are_dropped(rig: Rig) -> None:
    rig.transport.script[1] = [
        reply(
            1, StepRow(0, 5, (7,)), StepRow(1, 4, (7,)), StepRow(2, 6, (100,)), StepRow(3, 7, (7,))
        )
    ]
    rows = [StepRow(1, 5), StepRow(2, 6), StepRow(3, 7)]
    assert rig.exchange(rows) == {3: [7]}
    assert rig.counters.stale == 3


def test_more_drafts_than_wanted_are_cut(rig: Rig) -> None:
    rig.transport.script[1] = [reply(1, StepRow(1, 5, (1, 2, 3, 4)))]
    assert rig.exchange(k_want=2) == {1: [1, 2]}


def test_a_slow_draft_costs_ever_fewer_deadlines(rig: Rig) -> None:
    for _ in range(8):
        assert rig.exchange() is None
    assert (rig.counters.misses, rig.counters.skipped) == (3, 5)  # 1, 3 and 6 waited
    rig.late(reply(4, StepRow(1, 5, (8,))))  # not the newest: still behind
    assert rig.exchange() is None
    assert rig.counters.skipped == 6
    rig.late(reply(9, StepRow(1, 5, (8,))))
    rig.transport.script[10] = [reply(10, StepRow(1, 5, (9,)))]
    assert rig.exchange() == {1: [9]}
    assert not rig.attachment.lagging
    assert [step.step for step in rig.transport.steps] == list(range(1, 11))


def test_a_late_reply_is_known_by_the_step_that_asked(rig: Rig) -> None:
    for _ in range(6):
        rig.exchange()
    misses = rig.counters.misses
    assert rig.exchange(k_want=0) == {}
    rig.late(reply(6, StepRow(1, 5, (8,))))
    rig.transport.script[8] = [reply(8, StepRow(1, 5, (9,)))]
    assert rig.exchange() == {1: [9]}
    assert rig.counters.misses == misses


def test_a_step_that_wants_nothing_is_told_and_waits_for_nothing(rig: Rig) -> None:
    assert rig.exchange(k_want=0) == {}
    assert rig.transport.steps[0].rows == [StepRow(1, 5, (3,))]
    assert (rig.counters.sent, rig.counters.misses) == (1, 0)
    assert not rig.attachment.lagging


def test_steps_name_the_messages_they_rely_on_and_messages_the_step_they_follow(rig: Rig) -> None:
    attachment = rig.attachment
    cseq, after = attachment.next_order
    attachment.post(Add(cseq, 1, 5, 4, 0.0, None, (1, 2), after))
    rig.exchange(k_want=0)
    cseq, after = attachment.next_order
    attachment.post(Delete(cseq, 1, 5, after))
    rig.exchange((), k_want=0)
    assert rig.control.sent == [Add(1, 1, 5, 4, 0.0, None, (1, 2), 0), Delete(2, 1, 5, 1)]
    assert [step.cseq_required for step in rig.transport.steps] == [1, 2]


def test_rejections_are_told_once(rig: Rig) -> None:
    rig.control.inbox += [Nack(2, 1, "unknown"), Nack(3, 1, "unknown")]
    with pytest.raises(LinkClosed, match="end of the test"):
        rig.attachment.listen()
    assert not rig.attachment.take_rejected_all()
    assert rig.attachment.take_rejected() == {2, 3}
    assert rig.attachment.take_rejected() == set()
    rig.attachment.reject(1)
    rig.attachment.reject(ALL_SLOTS)
    assert rig.attachment.take_rejected_all()
    assert not rig.attachment.take_rejected_all()
    assert rig.attachment.take_rejected() == set()
    assert rig.counters.resyncs == 4


@pytest.mark.parametrize(
    ("last", "why"),
    [
        (Bye("shutting down"), "shutting down"),
        (Ready(1), "unexpected Ready"),
        (LinkError("control message is not msgpack"), "not msgpack"),
    ],
)
def test_the_listener_ends_with_the_draft(rig: Rig, last: Message | LinkError, why: str) -> None:
    rig.control.inbox += [Pong(1), last]
    with pytest.raises(LinkError, match=why):
        rig.attachment.listen()
    assert isinstance(rig.control.sent[0], Ping)


def test_a_silent_draft_is_hung(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000))
    monkeypatch.setattr("rayspec.link.attachment.time.monotonic", lambda: next(clock) * 0.02)
    rig.control.inbox += [None] * 100
    with pytest.raises(LinkClosed, match="hung"):
        rig.attachment.listen()
    assert sum(isinstance(message, Ping) for message in rig.control.sent) > 1


def test_after_its_end_everything_is_closed(rig: Rig) -> None:
    rig.attachment.down("first")
    rig.attachment.down("second")
    assert rig.control.interrupted
    with pytest.raises(LinkClosed, match="first"):
        rig.exchange()
    with pytest.raises(LinkClosed, match="first"):
        rig.attachment.post(Delete(1, 0, 1))
    with pytest.raises(LinkClosed, match="first"):
        rig.attachment.listen()
