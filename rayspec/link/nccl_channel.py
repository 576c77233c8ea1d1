"""Step frames between devices over NCCL, on streams beside the one that computes."""

from __future__ import annotations

from typing import Any, Final

import torch

from rayspec.link.channel import Inbox
from rayspec.link.nccl import NcclGroups
from rayspec.link.spec import LinkSpec

__all__ = ["NcclChannel"]

# Steps that may be under way. The engine runs at most a few ahead of the device; a draft that is
# further behind than this gets everything anew.
_RING: Final = 16
# High: on hardware queues of their own, so that a waiting kernel is never in front of what it
# waits for.
_PRIORITY: Final = -1


class NcclChannel:
    """Rings of frames, one stream per direction.

    A transfer begins once its frame is packed, so a receive is pending only while the target has
    nothing else to do. All buffers belong to one attachment: what an aborted one still writes
    cannot reach the next.
    """

    def __init__(self, groups: NcclGroups, spec: LinkSpec, device: torch.device) -> None:
        self._groups = groups
        self._device = device
        ring = (_RING, *spec.shape.size)
        self._outboxes = torch.zeros(ring, dtype=torch.int32, device=device)
        self._inboxes = torch.zeros(ring, dtype=torch.int32, device=device)
        self._q: torch.Tensor | None = None
        if spec.q_size is not None:
            self._q = torch.zeros((_RING, *spec.q_size), dtype=torch.int32, device=device)
        self._arrived = torch.zeros(1, dtype=torch.int32, device=device)
        self._tx: Any = torch.cuda.Stream(device, priority=_PRIORITY)
        self._rx: Any = torch.cuda.Stream(device, priority=_PRIORITY)
        self._packed = [torch.cuda.Event() for _ in range(_RING)]
        self._sent = [torch.cuda.Event() for _ in range(_RING)]
        # The zeroing above was on this thread's stream.
        zeroed = torch.cuda.Event()
        zeroed.record(torch.cuda.current_stream(device))
        zeroed.synchronize()

    def adopt(self) -> None:
        """Let the allocator know every stream that uses the buffers, so that none outlives them."""
        main = torch.cuda.current_stream(self._device)
        for tensor in (self._outboxes, self._inboxes, self._q, self._arrived):
            if tensor is not None:
                for stream in (main, self._tx, self._rx):
                    tensor.record_stream(stream)

    def outbox(self, step: int) -> torch.Tensor | None:
        """Return the step's frame, or None while its predecessor in the ring is being sent."""
        at = step % _RING
        return self._outboxes[at] if self._sent[at].query() else None

    def post(self, step: int, *, expect: bool) -> None:
        """Enqueue the transfers behind the kernel that packs the frame."""
        at = step % _RING
        packed = self._packed[at]
        packed.record(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._tx):
            self._tx.wait_event(packed)
            self._groups.send([self._outboxes[at]])
            self._sent[at].record(self._tx)
        if not expect:
            return
        with torch.cuda.stream(self._rx):
            self._rx.wait_event(packed)
            q = [] if self._q is None else [self._q[at]]
            self._groups.recv([self._inboxes[at], *q])
            self._arrived.fill_(step)

    def inbox(self, step: int) -> Inbox:
        """Return the step's place in the ring."""
        at = step % _RING
        q = None if self._q is None else self._q[at]
        return Inbox(self._inboxes[at], q, self._arrived, polled=True)

    def drained(self) -> bool:
        """Whether every frame is sent."""
        return all(sent.query() for sent in self._sent)

    def abort(self) -> None:
        """Abort the groups, the one with the pending receive first."""
        self._groups.abort()
