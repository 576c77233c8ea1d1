"""The draft's end of a frame path, as rounds use it: frames and replies in device memory."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from rayspec.errors import LinkError
from rayspec.link.protocol import Announce, FrameShape
from rayspec.link.transport import Transport

__all__ = ["RING", "Arrival", "FramePath", "HostPath", "ReplyPlace"]

# Frames, and replies, of one target that may be under way.
RING = 8


@dataclass(frozen=True, slots=True)
class Arrival:
    """A frame that arrived: on the device, and a copy for the host."""

    frame: torch.Tensor  # [S + 1, W] int32
    words: np.ndarray  # the same, on the host


@dataclass(frozen=True, slots=True)
class ReplyPlace:
    """Where a round writes its reply."""

    index: int
    frame: torch.Tensor  # [S + 1, W] int32
    q: torch.Tensor | None  # [S, K, 2M] int32


class FramePath(Protocol):
    """Used by the step loop's thread alone, on the rounds' stream.

    `announce`, `cut` and `abort` are for any thread.

    A frame that is `polled` for arrives without a wake-up.
    """

    polled: bool

    def announce(self, told: Announce) -> None:
        """The target says that it sends a frame, and what its header will say."""

    def due(self) -> Announce | None:
        """Return what was said of the next frame, once the rounds of all before it have ended.

        None where frames are not announced.
        """

    def post(self) -> tuple[torch.Tensor, Any]:
        """Receive the frame that is due; return where, and the event of its arrival."""

    def poll(self) -> Arrival | None:
        """Return the next frame if it has arrived; raises LinkClosed at the end."""

    def release(self) -> None:
        """The round of the oldest frame that was not released is done."""

    def place(self) -> ReplyPlace | None:
        """Return where the next reply goes; None while the target takes none."""

    def send(self, place: ReplyPlace, packed: Any) -> None:
        """Send a reply once the event `packed` is reached."""

    def pump(self) -> None:
        """Do what is due and not urgent: hand over replies."""

    def cut(self) -> None:
        """End what is pending on the target; a frame that never came is empty then."""

    def abort(self) -> None:
        """Tear the path down whatever the peer does; idempotent."""


class HostPath:
    """Frames that pass through the host: over gloo, from a target on another kind of device."""

    polled = False

    def __init__(
        self,
        transport: Transport,
        shape: FrameShape,
        q_size: tuple[int, int, int] | None,
        device: torch.device,
    ) -> None:
        self._transport = transport
        self._cuda = cuda = device.type == "cuda"

        def ring(size: tuple[int, ...], where: torch.device | None) -> torch.Tensor:
            pinned = cuda and where is None
            return torch.zeros(RING, *size, dtype=torch.int32, device=where, pin_memory=pinned)

        self._inbox, self._staged = ring(shape.size, device), ring(shape.size, None)
        self._outbox, self._out_host = ring(shape.size, device), ring(shape.size, None)
        self._q = self._q_host = None
        if q_size is not None:
            self._q, self._q_host = ring(q_size, device), ring(q_size, None)
        self._copied = [torch.cuda.Event() for _ in range(RING)] if cuda else []
        if cuda:
            torch.cuda.current_stream(device).synchronize()  # zeroed before the rounds' stream
        self._seen = self._released = self._replies = 0
        self._pending: deque[int] = deque()

    def announce(self, told: Announce) -> None:
        """Tell the transport."""
        self._transport.announce()

    def due(self) -> Announce | None:
        """Return None: frames are not waited for on the device."""
        return None

    def post(self) -> tuple[torch.Tensor, Any]:
        """Never called: nothing is due."""
        raise LinkError("a path through the host receives by itself")

    def poll(self) -> Arrival | None:
        """Take the next frame out of the mailbox and onto the device."""
        if self._seen - self._released >= RING:
            return None
        frame = self._transport.recv(0.0)
        if frame is None:
            return None
        at = self._seen % RING
        self._seen += 1
        self._staged[at].copy_(frame)
        self._inbox[at].copy_(self._staged[at], non_blocking=True)
        return Arrival(self._inbox[at], self._staged[at].numpy())

    def release(self) -> None:
        """Free the oldest frame's place."""
        self._released += 1

    def place(self) -> ReplyPlace | None:
        """Return the next place of the ring."""
        if len(self._pending) >= RING:
            return None
        at = self._replies % RING
        return ReplyPlace(at, self._outbox[at], None if self._q is None else self._q[at])

    def send(self, place: ReplyPlace, packed: Any) -> None:
        """Copy the reply to the host; `pump` sends it from there."""
        at = place.index
        self._replies += 1
        self._out_host[at].copy_(self._outbox[at], non_blocking=True)
        if self._q is not None and self._q_host is not None:
            self._q_host[at].copy_(self._q[at], non_blocking=True)
        if self._cuda:
            self._copied[at].record()
        self._pending.append(at)

    def pump(self) -> None:
        """Send the replies that have reached the host."""
        while self._pending and (not self._cuda or self._copied[self._pending[0]].query()):
            at = self._pending.popleft()
            q = None if self._q_host is None else self._q_host[at].clone()
            self._transport.send(self._out_host[at].clone(), q)

    def cut(self) -> None:
        """Nothing to do: nothing waits on the device."""

    def abort(self) -> None:
        """Tear the transport down."""
        self._transport.abort()
