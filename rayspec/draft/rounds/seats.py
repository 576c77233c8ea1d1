"""Which sequences have a row and blocks, and what the device is told about them.

Nothing here runs on the device by itself: changes wait in the state until the next round.
"""

from __future__ import annotations

import struct
import time
from collections import deque
from collections.abc import Iterable
from typing import Final

import numpy as np

from rayspec.draft.mirror import DraftSequence
from rayspec.draft.rounds.blocks import BlockPool
from rayspec.draft.rounds.layout import Report
from rayspec.draft.rounds.rows import Row, TargetSlots
from rayspec.draft.rounds.spec import STRIDE, RoundsSpec
from rayspec.draft.rounds.state import SlotState
from rayspec.errors import LinkRefused
from rayspec.link.protocol import Hello

__all__ = ["Seats"]

_SEED_SALT: Final = 0x9E3779B97F4A7C15


class Seats:
    """Gives slots to targets, and rows and blocks to their sequences.

    `following` is the number of the next round: the first that knows what is changed now. `widths`
    are those of catch-ups.
    """

    def __init__(
        self, spec: RoundsSpec, state: SlotState, pool: BlockPool, widths: tuple[int, ...] = ()
    ) -> None:
        self.pool = pool
        self.following = 1
        self._spec = spec
        self._state = state
        self._widths = widths
        self._targets: list[TargetSlots] = []
        self._rows: dict[int, Row] = {}  # by the sequence's uid
        self._free_rows = list(range(spec.rows - 1, -1, -1))
        self._waiting: deque[tuple[DraftSequence, TargetSlots]] = deque()

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def rows(self) -> list[Row]:
        """The rows in use."""
        return list(self._rows.values())

    @property
    def waiting(self) -> int:
        """Sequences without a row."""
        return len(self._waiting)

    # Targets and their sequences.

    def add_target(self, hello: Hello) -> TargetSlots:
        """Give a target its slots; raises LinkRefused when there is no room for them."""
        spec = self._spec
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
            max_len=min(hello.max_len, self._spec.max_len),
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

    def drop(self, target: TargetSlots, sequence: DraftSequence) -> Row | None:
        """A sequence ended; the row that it had is free after `vacate`."""
        row = self._rows.pop(sequence.uid, None)
        if row is None:
            self._waiting = deque(entry for entry in self._waiting if entry[0] is not sequence)
            return None
        self._state.set("slot_map", target.base + sequence.slot, -1)
        self._state.set("gen", row.index, -1)
        return row

    def vacate(self, row: Row) -> None:
        """Free a row that was dropped; its blocks keep their content until others need them."""
        self.pool.keep(row.sequence.tokens, min(row.filled, row.length), row.blocks)
        self._free_rows.append(row.index)
        while self._waiting and self._free_rows:
            sequence, target = self._waiting.popleft()
            if len(sequence.tokens) <= target.max_len:
                self._seat(sequence, target)

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
                self.provide(row)

    def provide(self, row: Row) -> None:
        """Get blocks for what the next step may append and draft; without them none are drafted."""
        most = row.owner.max_len
        if row.length > most:
            return
        need = min(row.length + 2 * row.owner.k_max + 1, most)
        if need <= row.limit:
            return
        held = len(row.blocks)
        more = self.pool.take(self.pool.blocks_for(need) - held)
        if more is None:
            return
        row.blocks += more
        row.limit = len(row.blocks) * self.pool.block_size
        self._state.set_table(row.index, held, more)
        self._state.set("limit", row.index, row.limit)

    def publish(self, row: Row, end: int) -> None:
        """The KV of positions up to `end` is written."""
        row.filled = end
        row.since = self.following
        row.behind = row.gap >= STRIDE
        self._state.set("kv_len", row.index, end)

    def caught_up(self, rows: Iterable[Row]) -> None:
        """A catch-up that was launched now writes what the rows lack."""
        for row in rows:
            row.filled = row.length
            row.since = self.following
            row.behind = False

    def absorb(self, target: TargetSlots, number: int, report: np.ndarray) -> None:
        """Take up what round `number` reported, [slots, REPORT_WORDS], of rows it knew."""
        for row in self._rows.values():
            if row.owner is not target or row.since > number:
                continue
            line = report[row.sequence.slot]
            if line[Report.GEN] == row.sequence.gen:
                row.filled = int(line[Report.KV_LEN])
                row.behind = int(line[Report.LENGTH]) - row.filled >= STRIDE

    def _seat(self, sequence: DraftSequence, target: TargetSlots) -> None:
        state, tokens = self._state, sequence.tokens
        index = self._free_rows.pop()
        blocks, filled = self.pool.recall(tokens)
        row = Row(index, sequence, target, blocks, self._widths, filled, since=self.following)
        if 0 < row.gap <= STRIDE:
            # A round would make up for these, but not for these and what the next step brings.
            row.filled = filled = max(0, len(tokens) - STRIDE - 1)
        row.limit = len(blocks) * self.pool.block_size
        row.behind = row.gap >= STRIDE
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
        self.provide(row)


def _bits(value: float) -> int:
    return int(struct.unpack("<i", struct.pack("<f", value))[0])


def _own_seed(sequence: DraftSequence) -> int:
    """Return 31 bits that are not the target's: its own random numbers decide on our drafts."""
    seed = hash((sequence.uid, time.monotonic_ns())) if sequence.seed is None else sequence.seed
    mixed = (seed + _SEED_SALT) & 0xFFFFFFFFFFFFFFFF
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return (mixed ^ (mixed >> 31)) & 0x7FFFFFFF
