"""One target, as the draft sees it: what arrived, and what is applied of it."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from rayspec.draft.base import Drafter, DraftRequest
from rayspec.draft.counters import DraftCounters
from rayspec.draft.mirror import Mirror
from rayspec.errors import LinkClosed, LinkError
from rayspec.link.control import ControlChannel
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
    MirrorMessage,
    Ping,
    Pong,
    Reset,
    SetK,
    StepRow,
)
from rayspec.link.transport import Transport

__all__ = ["Peer", "PeerBase"]

logger = logging.getLogger(__name__)


class PeerBase:
    """The mirror belongs to the step loop; the peer's own thread only listens and queues.

    `announce` lets the frame path know of a frame on its way, and `abort` tears the path down, both
    from any thread.
    """

    def __init__(
        self,
        control: ControlChannel,
        hello: Hello,
        mirror: Mirror,
        counters: DraftCounters,
        announce: Callable[[Announce], None],
        abort: Callable[[], None],
    ) -> None:
        self.mirror = mirror
        self.gone = threading.Event()  # set by whoever notices first
        self.released = threading.Event()  # set by the step loop once it let go
        self._control = control
        self._hello = hello
        self._shape = FrameShape(hello.slots, hello.k_max)
        self._counters = counters
        self._announce = announce
        self._abort = abort
        self._inbox: deque[MirrorMessage] = deque()
        self._cseq = 0
        self._step = 0  # the newest that is applied

    # Step loop.

    def let_go(self) -> bool:
        """Forget a target that is gone; False while something of it is still running."""
        self.mirror.clear()
        return True

    def _apply_messages(self) -> bool:
        applied = False
        while self._inbox and self._inbox[0].after <= self._step:
            message = self._inbox.popleft()
            if message.cseq != self._cseq + 1:
                raise LinkError(f"control message {message.cseq} after {self._cseq}")
            self.mirror.apply(message)
            self._cseq = message.cseq
            applied = True
        return applied

    def _apply_step(self, step: T2D) -> None:
        self._step = step.step
        for nack in self.mirror.apply_step(step):
            self._counters.nacks += 1
            self._counters.mismatches += nack.slot == ALL_SLOTS
            self._control.send(nack)

    # Own thread.

    def listen(self, wake: Callable[[], None], alive: Callable[[], bool], timeout_s: float) -> None:
        """Queue what the target says until it is gone; raises the LinkError that ended it.

        A ping is left unanswered when the step loop is stuck: the target then sees a hung draft.
        """
        heard = time.monotonic()
        while not self.gone.is_set():
            message = self._control.receive(min(1.0, timeout_s))
            if message is None:
                if time.monotonic() - heard > timeout_s:
                    raise LinkClosed(f"target was silent for {timeout_s} s")
                continue
            heard = time.monotonic()
            match message:
                case Reset() | Add() | Delete() | SetK():
                    self._inbox.append(message)
                    wake()
                case Announce():
                    self._announce(message)
                    wake()
                case Ping(nonce=nonce):
                    if alive():
                        self._control.send(Pong(nonce))
                case Bye(why=why):
                    raise LinkClosed(why)
                case _:
                    raise LinkError(f"unexpected {type(message).__name__} from the target")

    # Any thread.

    def leave(self) -> None:
        """Mark the target as gone and wake its listener; nothing is waited for."""
        self.gone.set()
        self._control.interrupt()

    def cut(self) -> None:
        """End what waits for the target on the device: it is gone."""

    def close(self, why: str) -> None:
        """Say why, and release sockets, groups and threads."""
        self.gone.set()
        self._control.close(Bye(why))
        self._abort()


class Peer(PeerBase):
    """A target whose steps are answered by a drafter on the host."""

    def __init__(
        self,
        control: ControlChannel,
        transport: Transport,
        hello: Hello,
        drafter: Drafter,
        counters: DraftCounters,
    ) -> None:
        mirror = Mirror(hello, on_add=drafter.add, on_drop=drafter.drop)
        super().__init__(
            control, hello, mirror, counters, lambda _: transport.announce(), transport.abort
        )
        self._transport = transport
        self._frames: deque[T2D] = deque()
        # Over NCCL a target has posted one receive for every step that wants drafts.
        self._paired = hello.transport == "nccl"

    def advance(self) -> T2D | None:
        """Apply everything that can be applied; return the newest step, if it wants its answer.

        A target that is ahead gets one answer, for its newest step: it waits for no other.
        """
        self._collect()
        newest: T2D | None = None
        while True:
            self._apply_messages()
            if not self._frames:
                return newest if newest is not None and self._is_answered(newest) else None
            if newest is not None and self._paired and newest.k_want:
                self.reply(newest, (), (), 0)  # outdated, but its receive is posted
            if self._frames[0].cseq_required > self._cseq:
                return None  # its messages are still on their way, and older steps are outdated
            newest = self._frames.popleft()
            self._apply_step(newest)

    def requests(self, step: T2D) -> list[DraftRequest]:
        """Return what to draft for a step."""
        return [DraftRequest(sequence, k) for sequence, k in self.mirror.wanted(step)]

    def reply(
        self, step: T2D, requests: Sequence[DraftRequest], drafts: Sequence[list[int]], took_us: int
    ) -> None:
        """Answer a step; rows that got nothing say so."""
        by_slot = {
            request.sequence.slot: tuple(draft[: request.k])
            for request, draft in zip(requests, drafts, strict=True)
        }
        rows = [StepRow(row.slot, row.gen, by_slot.get(row.slot, ())) for row in step.rows]
        frame = D2T(self._hello.epoch, step.step, took_us, rows).pack(self._shape)
        self._transport.send(frame)

    def _is_answered(self, step: T2D) -> bool:
        return step.k_want > 0 or not self._paired

    def _collect(self) -> None:
        while (frame := self._transport.recv(0.0)) is not None:
            step = T2D.unpack(frame, self._shape)
            if step.epoch != self._hello.epoch:
                continue
            newest = self._frames[-1].step if self._frames else self._step
            if step.step != newest + 1:
                raise LinkError(f"step {step.step} after step {newest}")
            self._counters.frames += 1
            self._frames.append(step)
