"""Step frames between devices over NCCL, seen from the draft."""

from __future__ import annotations

import time
from typing import Any, Final

import torch

from rayspec.draft.nccl_host import Groups
from rayspec.draft.rounds.paths import RING, Arrival, ReplyPlace
from rayspec.link.protocol import FrameShape

__all__ = ["NcclPath"]

# Receives that are posted at any time: one more than what a target that waits can send.
_POSTED: Final = 2
_ABORT_S: Final = 2.0


class NcclPath:
    """Rings of frames and replies, a stream for each direction.

    A target that takes no replies holds up its own stream only. Created on the target's thread and
    then used by the step loop's.
    """

    polled = True

    def __init__(
        self,
        groups: Groups,
        shape: FrameShape,
        q_size: tuple[int, int, int] | None,
        device: torch.device,
    ) -> None:
        self._groups = groups
        ring = (RING, *shape.size)
        self._inbox = torch.zeros(ring, dtype=torch.int32, device=device)
        self._outbox = torch.zeros(ring, dtype=torch.int32, device=device)
        self._q = None
        if q_size is not None:
            self._q = torch.zeros((RING, *q_size), dtype=torch.int32, device=device)
        self._host = torch.zeros(ring, dtype=torch.int32, pin_memory=True)
        self._words = self._host.numpy()
        self._rx: Any = torch.cuda.Stream(device, priority=-1)
        self._tx: Any = torch.cuda.Stream(device, priority=-1)
        zeroed = torch.cuda.Event()
        zeroed.record(torch.cuda.current_stream(device))
        zeroed.synchronize()
        self._arrived = [torch.cuda.Event() for _ in range(RING)]
        self._sent = [torch.cuda.Event() for _ in range(RING)]
        self._posted = self._seen = self._released = self._replies = 0

    def poll(self) -> Arrival | None:
        """Return the next frame once it and its copy for the host are there."""
        at = self._seen % RING
        if self._seen == self._posted or not self._arrived[at].query():
            return None
        self._seen += 1
        return Arrival(self._inbox[at], self._words[at])

    def release(self) -> None:
        """Free the oldest frame's place for a receive."""
        self._released += 1

    def place(self) -> ReplyPlace | None:
        """Return the next place of the ring, unless its last reply was not taken yet."""
        at = self._replies % RING
        if not self._sent[at].query():
            return None
        return ReplyPlace(at, self._outbox[at], None if self._q is None else self._q[at])

    def send(self, place: ReplyPlace, packed: Any) -> None:
        """Send behind the kernel that packs the reply, on a stream of its own."""
        at = place.index
        self._replies += 1
        with torch.cuda.stream(self._tx):
            self._tx.wait_event(packed)
            self._groups.send([self._outbox[at], *([] if place.q is None else [place.q])])
            self._sent[at].record(self._tx)

    def pump(self) -> None:
        """Keep receives posted, so that no frame waits for the host."""
        while self._posted < self._seen + _POSTED and self._posted < self._released + RING:
            at = self._posted % RING
            with torch.cuda.stream(self._rx):
                self._groups.recv([self._inbox[at]])
                self._host[at].copy_(self._inbox[at], non_blocking=True)
                self._arrived[at].record(self._rx)
            self._posted += 1

    def abort(self) -> None:
        """Abort the groups, and give their kernels the time to leave our buffers alone."""
        self._groups.abort()
        until = time.monotonic() + _ABORT_S
        while not (self._rx.query() and self._tx.query()) and time.monotonic() < until:
            time.sleep(0.001)
