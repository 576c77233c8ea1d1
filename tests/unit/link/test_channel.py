"""Steps told from a device: the channel through the host, and a draft that falls far behind."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
import torch

from rayspec.errors import LinkClosed
from rayspec.link.attachment import Attachment
from rayspec.link.channel import HostChannel, Inbox
from rayspec.link.counters import LinkCounters
from rayspec.link.path import Path, host_path
from rayspec.link.protocol import D2T, T2D, Add, Announce, StepRow
from rayspec.link.spec import LinkSpec

CPU = torch.device("cpu")
EPOCH = 3
SPEC = LinkSpec(
    slots=2,
    k_max=2,
    vocab_size=50,
    max_len=64,
    tokenizer_hash="",
    deadline_s=0.05,
    q_mode="sparse",
    q_top=2,
)


class Transport:
    def __init__(self) -> None:
        self.sent: list[T2D] = []
        self.mailbox: deque[tuple[torch.Tensor, torch.Tensor]] = deque()
        self.q: torch.Tensor | None = None
        self.script: dict[int, list[int]] = {}  # steps that a frame is answered with

    def answer(self, step: int) -> None:
        reply = D2T(EPOCH, step, 9, [StepRow(1, 4, (step,))])
        q = torch.full((2, 2, 4), step, dtype=torch.int32)
        self.mailbox.append((reply.pack(SPEC.shape), q))

    def announce(self) -> None:
        pass

    def send(self, frame: torch.Tensor, q: torch.Tensor | None = None) -> None:
        self.sent.append(T2D.unpack(frame, SPEC.shape))
        for step in self.script.get(self.sent[-1].step, ()):
            self.answer(step)

    def recv(self, timeout_s: float) -> torch.Tensor | None:
        if not self.mailbox:
            return None
        frame, self.q = self.mailbox.popleft()
        return frame

    def abort(self) -> None:
        pass


class Control:
    def __init__(self) -> None:
        self.sent: list[Any] = []

    def send(self, message: Any) -> None:
        self.sent.append(message)

    def interrupt(self) -> None:
        pass


class Rig:
    def __init__(self) -> None:
        self.transport = Transport()
        self.control = Control()
        self.counters = LinkCounters()
        path = host_path(self.transport, SPEC, EPOCH, self.counters, CPU)
        control: Any = self.control
        self.attachment = Attachment(control, path, EPOCH, SPEC, self.counters)

    def step(self, k: int = 2) -> Inbox:
        step = self.attachment.begin_step()
        assert step is not None
        rows = [StepRow(1, 4, (7,))]
        frame = T2D(step.epoch, step.step, step.cseq_required, k, rows)
        step.frame.copy_(frame.pack(SPEC.shape))
        self.attachment.post_step(step, rows=1, k_want=k)
        return step.channel.inbox(step.step)


def test_a_reply_lies_in_the_inbox_with_its_weights() -> None:
    rig = Rig()
    rig.transport.script = {1: [1]}
    inbox = rig.step()
    assert not inbox.polled
    assert inbox.arrived.item() == 1
    assert D2T.unpack(inbox.frame, SPEC.shape).rows == [StepRow(1, 4, (1,))]
    assert inbox.q is not None
    assert (inbox.q == 1).all()
    assert (rig.counters.sent, rig.counters.received) == (1, 1)


def test_the_device_sees_what_the_host_sees_of_a_late_draft() -> None:
    rig = Rig()
    assert rig.step().arrived.item() == 0
    rig.transport.script = {2: [1, 2]}
    assert rig.step().arrived.item() == 0  # not waited for
    assert (rig.counters.misses, rig.counters.skipped) == (1, 1)
    rig.transport.script = {3: [3]}
    assert rig.step().arrived.item() == 3  # the draft had answered the step before
    assert not rig.attachment.lagging
    assert rig.counters.stale == 1


def test_steps_name_the_newest_that_asked() -> None:
    rig = Rig()
    asked = []
    for k in (2, 0, 2, 2):
        step = rig.attachment.begin_step()
        assert step is not None
        asked.append((step.step, step.asked_before))
        rows: list[StepRow] = []
        frame = T2D(step.epoch, step.step, step.cseq_required, k, rows)
        step.frame.copy_(frame.pack(SPEC.shape))
        rig.attachment.post_step(step, rows=1, k_want=k)
    assert asked == [(1, 0), (2, 1), (3, 1), (4, 3)]
    assert [frame.k_want for frame in rig.transport.sent] == [2, 0, 2, 2]


def test_control_messages_keep_their_place_between_steps() -> None:
    rig = Rig()
    rig.step(0)
    cseq, after = rig.attachment.next_order
    rig.attachment.post(Add(cseq, 0, 1, 2, 0.0, None, (1,), after=after))
    rig.step(0)
    assert [message.after for message in rig.control.sent] == [1]
    assert [frame.cseq_required for frame in rig.transport.sent] == [0, 1]


class FullChannel(HostChannel):
    """A ring whose frames are not taken until the test says so."""

    def __init__(self) -> None:
        self.full = False
        self.posted: list[int] = []

    def outbox(self, step: int) -> torch.Tensor | None:
        return None if self.full else torch.zeros(SPEC.shape.size, dtype=torch.int32)

    def post(self, step: int, *, expect: bool) -> None:
        self.posted.append(step)

    def drained(self) -> bool:
        return not self.full


def test_a_draft_far_behind_gets_everything_anew_once_it_caught_up() -> None:
    channel = FullChannel()
    control: Any = Control()
    counters = LinkCounters()
    attachment = Attachment(control, Path(None, channel), EPOCH, SPEC, counters)
    step = attachment.begin_step()
    assert step is not None
    attachment.post_step(step, rows=1, k_want=2)
    channel.full = True
    assert attachment.begin_step() is None
    assert attachment.begin_step() is None
    assert not attachment.take_rejected_all()
    channel.full = False
    assert attachment.begin_step() is None
    assert attachment.take_rejected_all()
    step = attachment.begin_step()
    assert step is not None
    assert step.step == 2  # no number was left out
    assert counters.sent == 1
    assert control.sent == [Announce(1, 0, 1, 2)]


def test_frames_between_hosts_are_not_announced() -> None:
    rig = Rig()
    rig.step()
    assert rig.control.sent == []


def test_at_its_end_an_attachment_tells_no_more_steps() -> None:
    rig = Rig()
    step = rig.attachment.begin_step()
    assert step is not None
    rig.attachment.down("the test ends it")
    with pytest.raises(LinkClosed, match="the test ends it"):
        rig.attachment.post_step(step, rows=1, k_want=2)
    with pytest.raises(LinkClosed, match="the test ends it"):
        rig.attachment.begin_step()
