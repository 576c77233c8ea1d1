"""The target's replies on a host: which one answers the newest step, and whether to wait for it."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from rayspec.link.counters import LinkCounters
from rayspec.link.frames import D2T, FrameShape
from rayspec.link.patience import Patience
from rayspec.link.transport import Transport

__all__ = ["Replies", "Reply"]


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply, its frame as it arrived, and its q on a link that carries it."""

    content: D2T
    frame: torch.Tensor
    q: torch.Tensor | None


class Replies:
    """Sends frames and collects what answers them; `Patience` says which steps wait."""

    def __init__(
        self,
        transport: Transport,
        shape: FrameShape,
        epoch: int,
        deadline_s: float,
        counters: LinkCounters,
    ) -> None:
        self._patience = Patience()
        self._transport = transport
        self._shape = shape
        self._epoch = epoch
        self._deadline_s = deadline_s
        self._counters = counters
        self._asked = 0  # the newest step that wanted drafts
        self._answered = 0  # the newest that a reply was seen for, however late

    @property
    def lagging(self) -> bool:
        """Whether the newest step that wanted drafts got none."""
        return self._patience.lagging

    def catch_up(self) -> int | None:
        """Drop late replies; return the newest step that wanted drafts if one answers it."""
        answered = None
        while (reply := self._next(0.0)) is not None:
            if self._answers_newest(reply):
                answered = self._answered = self._asked
            else:
                self._counters.stale += 1
        return answered

    def ask(self, step: int, frame: torch.Tensor, *, expect: bool) -> Reply | None:
        """Send a step's frame and return its reply, or None when there is none in time."""
        start = time.perf_counter()
        self._transport.send(frame)
        self._counters.sent += 1
        if not expect:
            return None
        waits = self._patience.waits(caught_up=self._answered == self._asked)
        self._asked = step
        reply = self._await(start + self._deadline_s) if waits else None
        self._patience.learn(in_time=reply is not None)
        if reply is None:
            if waits:
                self._counters.misses += 1
            else:
                self._counters.skipped += 1
            return None
        self._answered = step
        self._counters.received += 1
        self._counters.round_trip.add((time.perf_counter() - start) * 1e6)
        self._counters.draft.add(reply.content.t_draft_us)
        return reply

    def _await(self, until: float) -> Reply | None:
        while (left := until - time.perf_counter()) > 0:
            reply = self._next(left)
            if reply is None:
                return None
            if self._answers_newest(reply):
                return reply
            self._counters.stale += 1
        return None

    def _next(self, timeout_s: float) -> Reply | None:
        frame = self._transport.recv(timeout_s)
        if frame is None:
            return None
        return Reply(D2T.unpack(frame, self._shape), frame, self._transport.q)

    def _answers_newest(self, reply: Reply) -> bool:
        return reply.content.epoch == self._epoch and reply.content.step == self._asked
