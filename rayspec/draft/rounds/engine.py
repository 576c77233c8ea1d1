"""Owner of everything that drafts on a device: model, state, blocks, rounds and prefill.

One thread, the step loop's, calls all of it, inside `activate`. Nothing here waits for the device:
rounds are started, and what they reported is taken up once it has arrived.
"""

from __future__ import annotations

import contextlib
import logging
import struct
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import torch

from rayspec.draft.counters import RoundCounters
from rayspec.draft.mirror import DraftSequence
from rayspec.draft.rounds.blocks import BlockPool
from rayspec.draft.rounds.graphs import RoundGraphs
from rayspec.draft.rounds.layout import REPORT_WORDS, Order, Report
from rayspec.draft.rounds.prefill import Prefiller, next_piece
from rayspec.draft.rounds.rows import Row, TargetSlots
from rayspec.draft.rounds.spec import RoundsSpec
from rayspec.draft.rounds.state import SlotState
from rayspec.draft.spec import RoundStats
from rayspec.draft.vllm_model.base import DraftModel
from rayspec.errors import ConfigError, LinkRefused
from rayspec.link.frames import D2T_MAGIC
from rayspec.link.protocol import Hello

__all__ = ["Round", "RoundsEngine"]

logger = logging.getLogger(__name__)

# Rounds whose report was not taken up yet; each target has two at most.
_RING: Final = 32
_SEED_SALT: Final = 0x9E3779B97F4A7C15


@dataclass(slots=True, eq=False)
class Round:
    """A round that was started; `done` once its report arrived."""

    number: int
    owner: TargetSlots
    place: int  # in the rings
    told: int  # rows in its frame
    k: int
    at: float = field(default_factory=time.monotonic)
    done: bool = False
    drafted: int = 0  # tokens
    took_us: float = 0.0


class RoundsEngine:
    """Drafts for the slots of every target; construction takes nothing, `start` takes long."""

    def __init__(self, load: Callable[[], DraftModel], spec: RoundsSpec) -> None:
        self.spec = spec
        self.counters = RoundCounters()
        self._load = load
        self._model: DraftModel | None = None
        self._targets: list[TargetSlots] = []
        self._rows: dict[int, Row] = {}  # by the sequence's uid
        self._free_rows = list(range(spec.rows - 1, -1, -1))
        self._waiting: deque[tuple[DraftSequence, TargetSlots]] = deque()
        self._rounds: deque[Round] = deque()
        self._number = 0
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
        self._pool = BlockPool(blocks, model.block_size)
        self._state = SlotState(spec, self._max_blocks, model.device)
        self.graphs = RoundGraphs(spec, model, self._state)
        self._stream = torch.cuda.Stream(model.device, priority=-1) if cuda else None
        self._orders = torch.zeros(_RING, Order.WORDS, dtype=torch.int64, pin_memory=cuda)
        self._reports = torch.zeros(
            _RING, spec.max_slots, REPORT_WORDS, dtype=torch.int32, pin_memory=cuda
        )
        self._order_words = self._orders.numpy()
        self._report_words = self._reports.numpy()
        self._began = [_timer(cuda) for _ in range(_RING)]
        self._packed = [_timer(cuda) for _ in range(_RING)]
        self._ended = [_timer(cuda) for _ in range(_RING)]
        self._free_places = deque(range(_RING))
        if cuda:
            torch.cuda.synchronize(model.device)  # all this was filled on the default stream
        with self.activate():
            self.graphs.prepare(self._stream)
            self._prefiller = Prefiller(
                model, self._state.tokens, self._state.tables, spec.piece_us
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
        del self.graphs, self._state
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
        spec = self.spec
        base = 0
        for other in sorted(self._targets, key=lambda target: target.base):
            if other.base - base >= hello.slots:
                break
            base = other.base + other.slots
        if hello.slots > spec.max_slots or base + hello.slots > self._state.map_words:
            raise LinkRefused(f"no room for the {hello.slots} slots of one more target")
        target = TargetSlots(
            base,
            hello.slots,
            k_max=hello.k_max,
            max_len=min(hello.max_len, self.spec.max_len),
            vocab_size=hello.vocab_size,
            epoch=hello.epoch,
            sparse=hello.q_mode == "sparse",
            k_want=hello.k_max,
        )
        self._targets.append(target)
        return target

    def drop_target(self, target: TargetSlots) -> None:
        """Take a target's slots back; its sequences must have been dropped."""
        self._targets.remove(target)

    def add(self, target: TargetSlots, sequence: DraftSequence) -> None:
        """A sequence begins; it waits when no row is free, or is too long to draft at all."""
        if len(sequence.tokens) > target.max_len:
            return
        if self._free_rows:
            self._seat(sequence, target)
        else:
            self._waiting.append((sequence, target))

    def drop(self, target: TargetSlots, sequence: DraftSequence) -> None:
        """A sequence ended; its blocks keep their content until others need them."""
        row = self._rows.pop(sequence.uid, None)
        if row is None:
            self._waiting = deque(entry for entry in self._waiting if entry[0] is not sequence)
            return
        self._state.set("slot_map", target.base + sequence.slot, -1)
        self._state.set("gen", row.index, -1)
        piece = self._prefiller.current
        if piece is not None and piece.row is row:
            piece.dropped = True  # it still writes: row and blocks are freed with its end
        else:
            self._vacate(row)

    def set_k(self, sequence: DraftSequence) -> None:
        """Take up a sequence's new draft length."""
        row = self._rows.get(sequence.uid)
        if row is not None:
            self._state.set("k_cap", row.index, sequence.k)

    def grow(self, sequences: Iterable[DraftSequence]) -> None:
        """Have blocks ready for one more step and its drafts, so that no round waits for them."""
        for sequence in sequences:
            row = self._rows.get(sequence.uid)
            if row is not None:
                self._provide(row)

    # Rounds.

    @property
    def can_run(self) -> bool:
        """Whether one more round can be started before an earlier one was reported."""
        return bool(self._free_places)

    def run(
        self,
        target: TargetSlots,
        frame: torch.Tensor,
        reply: torch.Tensor | None,
        q: torch.Tensor | None,
        *,
        active: int,
        k_want: int,
    ) -> Round:
        """Start a round over a frame in device memory, with up to `k_want` drafts.

        `frame`, `reply` [slots + 1, W] and `q` [slots, k_max, 2 * top_m], all int32, must stay
        until the round is done.
        """
        self._state.flush()
        place = self._free_places.popleft()
        words = self._order_words[place]
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
        self._began[place].record()
        self.graphs.order.copy_(self._orders[place], non_blocking=True)
        self.graphs.launch(min(active, len(self._rows)), k_want)
        self._packed[place].record()
        self._reports[place, : target.slots].copy_(
            self.graphs.report[: target.slots], non_blocking=True
        )
        self._ended[place].record()
        self._number += 1
        target.k_want = k_want
        started = Round(self._number, target, place, told=active, k=k_want)
        self._rounds.append(started)
        return started

    def packed(self, started: Round) -> Any:
        """Return the event behind a round's reply; valid until the round is done."""
        return self._packed[started.place]

    @property
    def busy(self) -> bool:
        """Whether the device works on something whose end is to be noticed."""
        return bool(self._rounds) or self._prefiller.current is not None

    @property
    def waiting_since(self) -> float | None:
        """When the oldest round that has not ended was started, on the monotonic clock."""
        return self._rounds[0].at if self._rounds else None

    def settle(self) -> bool:
        """Take up what finished rounds reported; False when none had."""
        settled = False
        while self._rounds and self._ended[self._rounds[0].place].query():
            self._take_report(self._rounds.popleft())
            settled = True
        return settled

    def work(self) -> bool:
        """Publish finished prefill and begin the next piece; False when there was nothing to do."""
        prefiller = self._prefiller
        if prefiller.current is not None:
            piece = prefiller.take_done()
            if piece is None:
                return False
            self.counters.pieces += 1
            self._publish(piece.row, piece.end, failed=piece.failed, dropped=piece.dropped)
            self._unsettled = True
        if not self._unsettled:
            return False
        self._unsettled = False
        for row in self._rows.values():
            self._provide(row)
        piece = next_piece(list(self._rows.values()), prefiller.size)
        if piece is None:
            return False
        self._state.flush()
        after = None
        if self._stream is not None:
            after = torch.cuda.Event()
            after.record(self._stream)
        prefiller.submit(piece, after)
        return True

    def stats(self) -> RoundStats:
        """Return the counters now, and what is in use; from any thread."""
        counters = self.counters
        pool = None if self._model is None else self._pool
        return RoundStats(
            round_ewma_us=counters.round.ewma_us,
            round_p50_us=counters.round.percentile(0.5),
            round_p99_us=counters.round.percentile(0.99),
            step_ewma_us=counters.step.ewma_us,
            step_p50_us=counters.step.percentile(0.5),
            launch_p50_us=counters.launch.percentile(0.5),
            launch_p99_us=counters.launch.percentile(0.99),
            rows_not_ready=counters.rows_not_ready,
            prefill_pieces=counters.pieces,
            prefill_failures=counters.failures,
            rows_used=len(self._rows),
            rows_waiting=len(self._waiting),
            blocks_used=0 if pool is None else pool.used,
            blocks_total=0 if pool is None else pool.total,
        )

    # Rows.

    def _seat(self, sequence: DraftSequence, target: TargetSlots) -> None:
        state, tokens = self._state, sequence.tokens
        index = self._free_rows.pop()
        blocks, filled = self._pool.recall(tokens)
        if 0 < len(tokens) - filled <= 2:
            # A round would make up for these, but not for these and what the next step brings.
            filled = max(0, len(tokens) - 3)
        row = Row(index, sequence, target, blocks, filled, since=self._number + 1)
        row.limit = len(blocks) * self._pool.block_size
        row.behind = len(tokens) - filled > 2
        self._rows[sequence.uid] = row
        state.set_tokens(index, tokens)
        state.set_table(index, 0, blocks)
        for name, value in (
            ("gen", sequence.gen),
            ("length", len(tokens)),
            ("kv_len", filled),
            ("k_cap", sequence.k),
            ("temperature", _bits(sequence.temperature)),
            ("seed", _own_seed(sequence)),
            ("n_drafted", 0),
            ("limit", row.limit),
        ):
            state.set(name, index, value)
        state.set("slot_map", target.base + sequence.slot, index)
        self._provide(row)
        self._unsettled = True

    def _vacate(self, row: Row) -> None:
        self._pool.keep(row.sequence.tokens, min(row.filled, row.length), row.blocks)
        self._free_rows.append(row.index)
        while self._waiting and self._free_rows:
            sequence, target = self._waiting.popleft()
            if len(sequence.tokens) <= target.max_len:
                self._seat(sequence, target)

    def _provide(self, row: Row) -> None:
        """Get blocks for what the next step may append and draft; without them none are drafted."""
        most = row.owner.max_len
        if row.length > most:
            return
        need = min(row.length + 2 * row.owner.k_max + 1, most)
        if need <= row.limit:
            return
        held = len(row.blocks)
        more = self._pool.take(self._pool.blocks_for(need) - held)
        if more is None:
            return
        row.blocks += more
        row.limit = len(row.blocks) * self._pool.block_size
        self._state.set_table(row.index, held, more)
        self._state.set("limit", row.index, row.limit)

    def _publish(self, row: Row, end: int, *, failed: bool, dropped: bool) -> None:
        if dropped:
            self._vacate(row)
            return
        if failed:
            row.broken = True
            self.counters.failures += 1
            return
        row.filled = end
        row.since = self._number + 1
        row.behind = row.length - end > 2
        self._state.set("kv_len", row.index, end)

    def _take_report(self, ended: Round) -> None:
        report = self._report_words[ended.place]
        target, counters = ended.owner, self.counters
        drafting = report[: target.slots, Report.DRAFTED]
        ended.drafted = int(drafting.sum())
        ready = int(np.count_nonzero(drafting))
        if ended.k and ended.told:
            counters.rows_not_ready += ended.told - ready
        for row in self._rows.values():
            if row.owner is not target or row.since > ended.number:
                continue
            gen, length, filled, _ = report[row.sequence.slot].tolist()
            if gen == row.sequence.gen:
                row.filled = filled
                row.behind = length - filled > 2
        ended.took_us = self._began[ended.place].elapsed_time(self._packed[ended.place]) * 1e3
        if ready:
            counters.round.add(ended.took_us)
            _, k = self.graphs.fit(1, ended.k)
            counters.step.add(ended.took_us / k)
        self._unsettled = True
        self._free_places.append(ended.place)
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


class _HostTimer:
    """What a CUDA event is on a CPU, where everything has run when its call returns."""

    def record(self) -> None:
        self._at = time.perf_counter()

    def query(self) -> bool:
        return True

    def elapsed_time(self, end: _HostTimer) -> float:
        return (end._at - self._at) * 1e3


def _timer(cuda: bool) -> Any:
    return torch.cuda.Event(enable_timing=True) if cuda else _HostTimer()


def _bits(value: float) -> int:
    return int(struct.unpack("<i", struct.pack("<f", value))[0])


def _own_seed(sequence: DraftSequence) -> int:
    """Return 31 bits that are not the target's: its own random numbers decide on our drafts."""
    seed = hash((sequence.uid, time.monotonic_ns())) if sequence.seed is None else sequence.seed
    mixed = (seed + _SEED_SALT) & 0xFFFFFFFFFFFFFFFF
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return (mixed ^ (mixed >> 31)) & 0x7FFFFFFF
