"""Step frames between devices over NCCL, seen from the draft."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Any, Final

import torch

from rayspec.draft.nccl_host import Groups
from rayspec.draft.rounds.paths import RING, Arrival, ReplyPlace
from rayspec.draft.rounds.spec import RoundsSpec
from rayspec.draft.rounds.streams import own_stream
from rayspec.errors import LinkRefused
from rayspec.link.protocol import Announce, FrameShape

__all__ = ["NcclPath", "PathPlaces"]

_ABORT_S: Final = 2.0


@dataclass(frozen=True, slots=True, eq=False)
class _Place:
    """What one path needs for good; a number of int32 words and two streams."""

    inbox: torch.Tensor
    outbox: torch.Tensor
    host: torch.Tensor  # pinned
    q: torch.Tensor
    rx: Any
    tx: Any


class PathPlaces:
    """Memory and streams of all paths, taken before any target is attached.

    Taking or freeing them later can wait for the device, and so for the next frame of a target
    that has nothing to say.
    """

    def __init__(self, spec: RoundsSpec, device: torch.device) -> None:
        frames = RING * (spec.max_slots + 1) * FrameShape(spec.max_slots, spec.k_max).width
        q = RING * spec.max_slots * spec.k_max * 2 * spec.top_m

        def words(count: int) -> torch.Tensor:
            return torch.zeros(count, dtype=torch.int32, device=device)

        self._lock = threading.Lock()
        self._free = [
            _Place(
                words(frames),
                words(frames),
                torch.zeros(frames, dtype=torch.int32, pin_memory=True),
                words(q),
                own_stream(device, priority=-1),
                own_stream(device, priority=-1),
            )
            for _ in range(spec.targets)
        ]

    def take(self) -> _Place:
        """Return a place; raises LinkRefused when none is left."""
        with self._lock:
            if not self._free:
                raise LinkRefused("too many targets are attached")
            return self._free.pop()

    def give_back(self, place: _Place) -> None:
        """Free a place that nothing on the device uses any more."""
        with self._lock:
            self._free.append(place)


class NcclPath:
    """Rings of frames and replies, a stream for each direction.

    A receive is posted for a frame that the target announced, once the rounds of all before it have
    ended: what a round or its prefill does may wait for the device, and so for what is pending on
    it, while the target waits for the round. A target that takes no replies holds up its own stream
    only. Created on the target's thread and then used by the step loop's.
    """

    polled = True

    def __init__(
        self,
        groups: Groups,
        shape: FrameShape,
        q_size: tuple[int, int, int] | None,
        places: PathPlaces,
    ) -> None:
        self._groups = groups
        self._places = places
        self._place: _Place | None = places.take()
        place = self._place
        ring = (RING, *shape.size)
        self._inbox, self._outbox = _shaped(place.inbox, ring), _shaped(place.outbox, ring)
        self._q = None if q_size is None else _shaped(place.q, (RING, *q_size))
        self._host = _shaped(place.host, ring)
        self._words = self._host.numpy()
        self._rx, self._tx = place.rx, place.tx
        self._received = [torch.cuda.Event() for _ in range(RING)]
        self._arrived = [torch.cuda.Event() for _ in range(RING)]  # at the host, too
        self._sent = [torch.cuda.Event() for _ in range(RING)]
        self._posted = self._seen = self._released = self._replies = 0
        self._announced: deque[Announce] = deque()  # filled by the target's thread

    def announce(self, told: Announce) -> None:
        """Let the receive of this frame be posted."""
        self._announced.append(told)

    def due(self) -> Announce | None:
        """Return what was said of the next frame, once the rounds of all before it have ended."""
        ready = self._announced and self._posted == self._released
        return self._announced[0] if ready else None

    def post(self) -> tuple[torch.Tensor, Any]:
        """Receive the frame that is due; return where, and the event of its arrival."""
        at = self._posted % RING
        inbox, received = self._inbox[at], self._received[at]
        with torch.cuda.stream(self._rx):
            inbox.zero_()  # no frame, if the receive is aborted
            self._groups.recv([inbox])
            received.record(self._rx)
            self._host[at].copy_(inbox, non_blocking=True)
            self._arrived[at].record(self._rx)
        self._announced.popleft()
        self._posted += 1
        return inbox, received

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
        """Nothing to do: receives are posted one by one, and replies leave by themselves."""

    def cut(self) -> None:
        """Abort the groups; buffers and streams stay until `abort`."""
        self._groups.abort()

    def abort(self) -> None:
        """Abort the groups, and give their kernels the time to leave our buffers alone."""
        self._groups.abort()
        until = time.monotonic() + _ABORT_S
        while not (self._rx.query() and self._tx.query()):
            if time.monotonic() > until:
                return  # what may still be written to is lost
            time.sleep(0.001)
        place, self._place = self._place, None
        if place is not None:
            self._places.give_back(place)


def _shaped(words: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    return words[: math.prod(shape)].view(shape)
