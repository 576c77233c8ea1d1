"""Owner of everything that drafts on a device: model, state, blocks, rounds and prefill.

One thread, the step loop's, calls all of it, inside `activate`. Nothing here waits for the device:
rounds are started, and what they reported is taken up once it has arrived.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch

from rayspec.draft.counters import RoundCounters
from rayspec.draft.mirror import DraftSequence
from rayspec.draft.rounds.blocks import BlockPool
from rayspec.draft.rounds.catch_up import CatchUps, choose
from rayspec.draft.rounds.graphs import RoundGraphs
from rayspec.draft.rounds.layout import Order, Report
from rayspec.draft.rounds.prefill import Piece, Prefiller, next_piece
from rayspec.draft.rounds.ring import Round, RoundRing
from rayspec.draft.rounds.rows import Row, TargetSlots
from rayspec.draft.rounds.seats import Seats
from rayspec.draft.rounds.spec import RoundsSpec
from rayspec.draft.rounds.state import SlotState
from rayspec.draft.rounds.streams import own_stream
from rayspec.draft.spec import RoundStats
from rayspec.draft.vllm_model.base import DraftModel
from rayspec.errors import ConfigError
from rayspec.link.frames import D2T_MAGIC
from rayspec.link.protocol import Hello

__all__ = ["RoundsEngine"]

logger = logging.getLogger(__name__)


class RoundsEngine:
    """Drafts for the slots of every target; construction takes nothing, `start` takes long."""

    def __init__(self, load: Callable[[], DraftModel], spec: RoundsSpec) -> None:
        self.spec = spec
        self.counters = RoundCounters()
        self._load = load
        self._model: DraftModel | None = None
        self._rounds: deque[Round] = deque()
        self._unsettled = False  # something changed that may call for prefill

    # Lifecycle.

    def start(self) -> None:
        """Load the model, take the memory, and build every round."""
        spec = self.spec
        model = self._model = self._load()
        self._cuda = cuda = model.device.type == "cuda"
        self._max_blocks = -(-spec.max_len // model.block_size)
        blocks = self._affordable(model)
        model.allocate(blocks, self._max_blocks)
        self._state = SlotState(spec, self._max_blocks, model.device)
        pool = BlockPool(blocks, model.block_size)
        self._seats = Seats(spec, self._state, pool, spec.widths(model))
        self.graphs = RoundGraphs(spec, model, self._state)
        self._catch_ups = CatchUps(spec, model, self._state)
        self._stream = own_stream(model.device, priority=-1) if cuda else None
        self._ring = RoundRing(spec.max_slots, cuda)
        if cuda:
            torch.cuda.synchronize(model.device)  # all this was filled on the default stream
        with self.activate():
            memory = torch.cuda.graph_pool_handle() if cuda else None
            self.graphs.prepare(self._stream, memory)
            self._catch_ups.prepare(self._stream, memory)
            self._prefiller = Prefiller(
                model, self._state.tokens, self._state.tables, spec.piece_tokens
            )
            self._prefiller.start()
            self._state.warm_up()
        if cuda:
            torch.cuda.synchronize(model.device)
        logger.info("%d rows, %d blocks of %d tokens", spec.rows, blocks, model.block_size)

    def activate(self) -> AbstractContextManager[object]:
        """Make the rounds' stream the calling thread's current one."""
        if self._stream is None:
            return contextlib.nullcontext()
        torch.cuda.set_device(self.device)
        context: AbstractContextManager[object] = torch.cuda.stream(self._stream)
        return context

    def close(self) -> None:
        """Release model and cache; idempotent."""
        model, self._model = self._model, None
        if model is None:
            return
        self._prefiller.stop()
        if self._stream is not None:
            self._stream.synchronize()
        del self.graphs, self._catch_ups, self._state, self._seats
        model.close()

    @property
    def device(self) -> torch.device:
        """Where the rounds run."""
        if self._model is None:
            raise RuntimeError("the engine was not started")
        return self._model.device

    # Targets and their sequences.

    def add_target(self, hello: Hello) -> TargetSlots:
        """Give a target its slots; raises LinkRefused when there is no room for them."""
        return self._seats.add_target(hello)

    def drop_target(self, target: TargetSlots) -> None:
        """Take a target's slots back; its sequences must have been dropped."""
        self._seats.drop_target(target)

    def add(self, target: TargetSlots, sequence: DraftSequence) -> None:
        """A sequence begins; it waits when no row is free, or is too long to draft at all."""
        self._seats.add(target, sequence)
        self._prefiller.came()
        # Steps had no drafts for want of requests that ask for some: here is one.
        target.k_want = max(target.k_want, min(sequence.k, target.k_max))
        self._unsettled = True

    def drop(self, target: TargetSlots, sequence: DraftSequence) -> None:
        """A sequence ended; its blocks keep their content until others need them."""
        row = self._seats.drop(target, sequence)
        if row is None:
            return
        piece = self._prefiller.current
        part = None if piece is None else piece.part_of(row)
        if part is not None:
            part.dropped = True  # it is still written: row and blocks are freed with its end
        else:
            self._vacate(row)

    def set_k(self, sequence: DraftSequence) -> None:
        """Take up a sequence's new draft length."""
        self._seats.set_k(sequence)

    def grow(self, sequences: Iterable[DraftSequence]) -> None:
        """Have blocks ready for one more step and its drafts, so that no round waits for them."""
        self._seats.grow(sequences)

    # Rounds.

    @property
    def can_run(self) -> bool:
        """Whether one more round can be started before an earlier one was reported."""
        return self._ring.free

    def run(
        self,
        target: TargetSlots,
        frame: torch.Tensor,
        reply: torch.Tensor | None,
        q: torch.Tensor | None,
        *,
        active: int,
        k_want: int,
        after: Any = None,
    ) -> Round:
        """Start a round over a frame in device memory, with up to `k_want` drafts.

        `frame`, `reply` [slots + 1, W] and `q` [slots, k_max, 2 * top_m], all int32, must stay
        until the round is done. With the event `after` the round is launched before its frame is
        there, and whatever is launched later waits with it.
        """
        self._state.flush()
        ring = self._ring
        place = ring.take()
        words = ring.order_words[place]
        words[Order.FRAME] = frame.data_ptr()
        words[Order.REPLY] = 0 if reply is None else reply.data_ptr()
        words[Order.Q] = 0 if q is None else q.data_ptr()
        words[Order.BASE] = target.base
        words[Order.SLOTS] = target.slots
        words[Order.WIDTH] = frame.shape[1]
        words[Order.K_WANT] = k_want
        words[Order.K_MAX] = target.k_max
        words[Order.MAX_LEN] = target.max_len
        words[Order.VOCAB] = target.vocab_size
        words[Order.GREEDY] = not target.sparse
        words[Order.T_DRAFT_US] = int(self.counters.round.ewma_us)
        words[Order.MAGIC] = D2T_MAGIC
        self.graphs.order.copy_(ring.orders[place], non_blocking=True)
        if after is not None and self._stream is not None:
            self._stream.wait_event(after)
        ring.began[place].record()
        self.graphs.launch(min(active, len(self._seats)), k_want)
        ring.packed[place].record()
        ring.reports[place, : target.slots].copy_(
            self.graphs.report[: target.slots], non_blocking=True
        )
        ring.ended[place].record()
        target.k_want = k_want
        started = Round(self._seats.following, target, place, told=active, k=k_want)
        if after is not None:
            started.at = None
            self.counters.ahead += 1
        self._seats.following += 1
        self._rounds.append(started)
        return started

    def packed(self, started: Round) -> Any:
        """Return the event behind a round's reply; valid until the round is done."""
        return self._ring.packed[started.place]

    @property
    def busy(self) -> bool:
        """Whether the device works on something whose end is to be noticed, or is about to."""
        return bool(self._rounds) or self._prefiller.current is not None or self._unsettled

    @property
    def readies(self) -> bool:
        """Whether prefill soon lets sequences draft: a round launched by now would not know it."""
        return self._prefiller.readies

    @property
    def waiting_since(self) -> float | None:
        """When the oldest round that has not ended began, on the monotonic clock, if it has."""
        return self._rounds[0].at if self._rounds else None

    def arrived(self, ahead: Round, told: int) -> None:
        """The frame of a round that was started ahead is there, with so many rows."""
        ahead.at, ahead.told = time.monotonic(), told

    def settle(self) -> bool:
        """Take up what finished rounds reported; False when none had."""
        settled = False
        while self._rounds and self._ring.ended[self._rounds[0].place].query():
            self._take_report(self._rounds.popleft())
            settled = True
        return settled

    def work(self) -> bool:
        """Publish finished prefill, catch up and begin the next piece; False if nothing was done.

        What is launched here comes before the next round, and in the time that the target computes.
        """
        prefiller = self._prefiller
        done = prefiller.take_done()
        if done is not None:
            self.counters.pieces += 1
            self._take_piece(done)
        if not self._unsettled or prefiller.gathering:
            return False
        self._unsettled = False
        rows = self._seats.rows
        for row in rows:
            self._seats.provide(row)
        if self._catch_up(rows):
            self._unsettled = True  # there may be more of them than one launch takes
            return True
        if prefiller.current is not None:
            return False
        piece = next_piece(rows, prefiller.most)
        if piece is None:
            return False
        prefiller.submit(piece, self._tokens_there())
        return True

    def stats(self) -> RoundStats:
        """Return the counters now, and what is in use; from any thread."""
        if self._model is None:
            return RoundStats()
        seats, pool = self._seats, self._seats.pool
        return self.counters.stats(
            rows_used=len(seats),
            rows_waiting=seats.waiting,
            blocks_used=pool.used,
            blocks_total=pool.total,
        )

    def _catch_up(self, rows: Iterable[Row]) -> bool:
        if any(started.at is None for started in self._rounds):
            # It would stand behind a round that waits for its frame, and so would what it flushes,
            # without which no piece of prefill may begin.
            return False
        piece = self._prefiller.current
        free = (row for row in rows if piece is None or piece.part_of(row) is None)
        unknown = sum(started.owner.k_max + 1 for started in self._rounds)
        chosen, width = choose(free, unknown)
        if not chosen:
            return False
        self._state.flush()
        self._catch_ups.run(chosen, width)
        self._seats.caught_up(chosen)
        self.counters.catch_ups += 1
        return True

    def _tokens_there(self) -> Any:
        """Return the event behind which a piece finds its tokens and blocks; None if it does now.

        A round that waits for its frame would hold the piece up, and changes nothing it reads.
        """
        waiting = len(self._rounds) == 1 and self._rounds[0].at is None
        if waiting and not self._state.placed:
            return None
        self._state.flush()
        if self._stream is None:
            return None
        after = torch.cuda.Event()
        after.record(self._stream)
        return after

    def _vacate(self, row: Row) -> None:
        self._seats.vacate(row)
        self._unsettled = True  # who waited may have got the row

    def _take_piece(self, piece: Piece) -> None:
        self._unsettled = True
        self.counters.failures += piece.failed
        for part in piece.parts:
            if part.dropped:
                self._vacate(part.row)
            elif piece.failed:
                part.row.broken = True
            else:
                self._seats.publish(part.row, part.end)

    def _take_report(self, ended: Round) -> None:
        report = self._ring.report_words[ended.place]
        target, counters = ended.owner, self.counters
        drafting = report[: target.slots, Report.DRAFTED]
        ended.drafted = int(drafting.sum())
        ready = int(np.count_nonzero(drafting))
        if ended.k and ended.told:
            counters.rows_not_ready += ended.told - ready
        self._seats.absorb(target, ended.number, report)
        ended.took_us = self._ring.took_us(ended.place)
        if ready:
            counters.round.add(ended.took_us)
            _, k = self.graphs.fit(1, ended.k)
            counters.step.add(ended.took_us / k)
        self._unsettled = True
        self._ring.give_back(ended.place)
        ended.done = True

    def _affordable(self, model: DraftModel) -> int:
        """Return how many blocks the cache gets: what is needed at most, if the memory is there."""
        need = self.spec.rows * self._max_blocks + 1
        block_bytes = model.kv_bytes_per_token * model.block_size
        if self.spec.kv_gib is not None:
            blocks = int(self.spec.kv_gib * 2**30) // block_bytes
        elif model.device.type == "cuda":
            blocks = torch.cuda.mem_get_info(model.device)[0] // 2 // block_bytes
        else:
            blocks = need
        if blocks < 2:
            raise ConfigError("kv_gib", self.spec.kv_gib, f"one block takes {block_bytes} bytes")
        return min(blocks, need)
