"""One target whose steps are answered by rounds: from its frames to its replies."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import torch

from rayspec.draft.counters import DraftCounters
from rayspec.draft.mirror import DraftSequence, Mirror
from rayspec.draft.peer import PeerBase
from rayspec.draft.rounds.engine import RoundsEngine
from rayspec.draft.rounds.paths import Arrival, FramePath, ReplyPlace
from rayspec.draft.rounds.ring import Round
from rayspec.draft.rounds.rows import TargetSlots
from rayspec.errors import LinkError
from rayspec.link.control import ControlChannel
from rayspec.link.frames import T2D_MAGIC
from rayspec.link.protocol import T2D, Announce, Hello

__all__ = ["DevicePeer"]

# One runs, the next is queued behind it: the device never waits for the host.
_IN_FLIGHT = 2


@dataclass(frozen=True, slots=True)
class _Frame:
    """A frame that waits for its round, with what its header says."""

    arrival: Arrival
    step: int
    cseq_required: int
    active: int
    k_want: int
    seen: float  # perf_counter


@dataclass(frozen=True, slots=True)
class _Posted:
    """A frame that is being received, without a round so far."""

    told: Announce
    frame: torch.Tensor  # [S + 1, W] int32
    received: Any  # event


@dataclass(frozen=True, slots=True)
class _Ahead:
    """A round that waits on the device for its frame."""

    round: Round
    place: ReplyPlace | None
    told: Announce


class DevicePeer(PeerBase):
    """Starts a round as soon as a frame and its messages are there, and does the books after it.

    Every frame that wants drafts is answered, one that is outdated already with no drafts, so that
    sends and receives always pair. Where frames are announced a round is launched ahead of its
    frame (`look_ahead`): the device then begins it with the frame's arrival, and the host has no
    part in the time that the target waits.
    """

    def __init__(
        self,
        control: ControlChannel,
        path: FramePath,
        hello: Hello,
        engine: RoundsEngine,
        counters: DraftCounters,
    ) -> None:
        mirror = Mirror(hello, on_add=self._add, on_drop=self._drop, on_change=engine.set_k)
        super().__init__(control, hello, mirror, counters, path.announce, path.abort)
        self._path = path
        self._engine = engine
        self._target: TargetSlots | None = None
        self._frames: deque[_Frame] = deque()
        self._rounds: deque[Round] = deque()
        self._newest = 0  # step that arrived
        self._posted: _Posted | None = None
        self._ahead: _Ahead | None = None

    @property
    def polled(self) -> bool:
        """Whether frames arrive without a wake-up."""
        return self._path.polled

    def advance(self) -> bool:
        """Do what can be done now without waiting; start one round at most. False if nothing."""
        if self._target is None:
            self._target = self._engine.add_target(self._hello)
        moved = self._collect()
        self._reap()
        moved |= self._apply_messages()
        moved |= self._start_round(self._target)
        self._path.pump()
        return moved

    def look_ahead(self) -> bool:
        """Launch the next round although its frame is not there; False if that cannot be done.

        Whatever the device is given for any target after that waits for this frame.
        """
        posted, target = self._posted, self._target
        told = self._path.due() if posted is None else posted.told
        if told is None or target is None or self._frames or self._rounds:
            return False
        if told.cseq_required > self._cseq or not self._engine.can_run:
            return False
        if told.step != self._newest + 1 or not 0 <= told.k_want <= self._hello.k_max:
            raise LinkError(f"step {told.step} with {told.k_want} drafts was announced")
        place = self._path.place() if told.k_want else None
        if told.k_want and place is None:
            return False
        if posted is None:
            posted = _Posted(told, *self._path.post())
        self._posted = None
        started = self._run(target, posted.frame, place, told.rows, told.k_want, posted.received)
        self._ahead = _Ahead(started, place, told)
        return True

    def receive(self) -> bool:
        """Receive the next frame that was announced; False if there is none."""
        told = self._path.due()
        if told is None:
            return False
        self._posted = _Posted(told, *self._path.post())
        return True

    def cut(self) -> None:
        """End a round's wait for a frame that does not come any more."""
        self._path.cut()

    def let_go(self) -> bool:
        """Free the target's slots; its buffers are in use until its last round has ended."""
        self.mirror.clear()
        self._posted = self._ahead = None  # what waited was cut
        self._reap()
        if self._rounds:
            return False
        if self._target is not None:
            self._engine.drop_target(self._target)
            self._target = None
        return True

    def _collect(self) -> bool:
        collected = False
        while (arrival := self._path.poll()) is not None:
            seen = time.perf_counter()
            collected = True
            magic, epoch, step, cseq_required, active, k_want = arrival.words[0, :6].tolist()
            if magic != T2D_MAGIC or epoch != self._hello.epoch:
                raise LinkError(f"step frame starts with {magic:#x}, epoch {epoch}")
            if step != self._newest + 1:
                raise LinkError(f"step {step} after step {self._newest}")
            if not 0 <= k_want <= self._hello.k_max:
                raise LinkError(
                    f"step frame wants {k_want} drafts, at most {self._hello.k_max} fit"
                )
            self._newest = step
            self._counters.frames += 1
            frame = _Frame(arrival, step, cseq_required, active, k_want, seen)
            self._posted = None
            ahead, self._ahead = self._ahead, None
            if ahead is None:
                self._frames.append(frame)
            else:
                self._meet(ahead, frame)
        return collected

    def _start_round(self, target: TargetSlots) -> bool:
        engine, path = self._engine, self._path
        if not self._frames or self._frames[0].cseq_required > self._cseq:
            return False  # its messages are still on their way
        if len(self._rounds) >= _IN_FLIGHT or not engine.can_run:
            return False
        frame = self._frames[0]
        place = None
        if frame.k_want:
            place = path.place()
            if place is None:
                return False
        self._frames.popleft()
        # A target that has sent its next step waits for no drafts of this one.
        k = 0 if self._frames else frame.k_want
        started = self._run(target, frame.arrival.frame, place, frame.active, k)
        self._answer(started, place)
        engine.counters.launch.add((time.perf_counter() - frame.seen) * 1e6)
        self._book(frame)
        return True

    def _run(
        self,
        target: TargetSlots,
        frame: torch.Tensor,
        place: ReplyPlace | None,
        active: int,
        k_want: int,
        after: Any = None,
    ) -> Round:
        reply, q = (None, None) if place is None else (place.frame, place.q)
        started = self._engine.run(
            target, frame, reply, q, active=active, k_want=k_want, after=after
        )
        self._rounds.append(started)
        return started

    def _answer(self, started: Round, place: ReplyPlace | None) -> None:
        if place is not None:
            self._path.send(place, self._engine.packed(started))
            self._counters.answered += 1

    def _meet(self, ahead: _Ahead, frame: _Frame) -> None:
        """The frame of the round that was launched ahead is there, and the device at work on it."""
        told = ahead.told
        if (frame.cseq_required, frame.k_want) != (told.cseq_required, told.k_want):
            raise LinkError(f"step {frame.step} is not what was announced: {told}")
        # Not before: an abort could meet a send that has not begun.
        self._answer(ahead.round, ahead.place)
        self._engine.arrived(ahead.round, frame.active)
        self._book(frame)

    def _book(self, frame: _Frame) -> None:
        """Bring the mirror up to the step that the device is working on already."""
        step = T2D.unpack(torch.from_numpy(frame.arrival.words), self._shape)
        self._apply_step(step)
        sequences = (self.mirror.get(row.slot, row.gen) for row in step.rows)
        self._engine.grow(sequence for sequence in sequences if sequence is not None)

    def _reap(self) -> None:
        while self._rounds and self._rounds[0].done and self._ahead is None:
            ended = self._rounds.popleft()
            self._path.release()
            self._counters.rounds += 1
            self._counters.drafted_tokens += ended.drafted
            if ended.drafted:
                self._counters.draft.add(ended.took_us)

    def _add(self, sequence: DraftSequence) -> None:
        if self._target is not None:
            self._engine.add(self._target, sequence)

    def _drop(self, sequence: DraftSequence) -> None:
        if self._target is not None:
            self._engine.drop(self._target, sequence)
