"""What the device knows of a target's slots and of its exchange with one draft."""

from __future__ import annotations

from typing import Any, Final

import torch
import triton
import triton.language as tl

__all__ = [
    "COUNTERS",
    "SLOT_FIELDS",
    "DraftFigures",
    "ExchangeState",
    "Figures",
]

# Columns of the slot table: generation, tokens told, most drafts (0: not told of), and how many
# drafts the newest proposal held.
SLOT_FIELDS: Final = 4
# Words of `counters` before the two per-position histograms.
COUNTERS: Final = (
    "received",
    "misses",
    "skipped",
    "stale",
    "wait_ns",
    "draft_us",
    "lagging",
    "steps",
)


class DraftFigures:
    """What was drafted and what of it was accepted, by position; fillers excluded."""

    def __init__(self, steps: int, drafted: list[int], accepted: list[int]) -> None:
        self.steps = steps
        self.drafted_per_pos = drafted
        self.accepted_per_pos = accepted

    @property
    def drafted(self) -> int:
        """Drafts that were verified."""
        return sum(self.drafted_per_pos)

    @property
    def accepted(self) -> int:
        """Drafts that were accepted."""
        return sum(self.accepted_per_pos)


class Figures:
    """A snapshot of the counters; `link` by the names of `COUNTERS`."""

    def __init__(self, words: list[int], k_max: int) -> None:
        self.link = dict(zip(COUNTERS, words, strict=False))
        histograms = words[len(COUNTERS) :]
        self.drafts = DraftFigures(self.link["steps"], histograms[:k_max], histograms[k_max:])


class ExchangeState:
    """Tensors that live as long as the engine, whatever draft is attached.

    `slots` [S, 4] int32, see `SLOT_FIELDS`; `flow` [4] int32: the newest reply is usable, then what
    `Patience` remembers (steps left that do not wait, penalty, believed to have caught up);
    `counters` [8 + 2K] int64. Written by kernels in the order of the main stream.
    """

    def __init__(self, slots: int, k_max: int, device: torch.device) -> None:
        self.k_max = k_max
        self.slots = torch.zeros((slots, SLOT_FIELDS), dtype=torch.int32, device=device)
        self.flow = torch.zeros(4, dtype=torch.int32, device=device)
        self.counters = torch.zeros(len(COUNTERS) + 2 * k_max, dtype=torch.int64, device=device)
        self._snapshot = _Snapshot(self.counters)

    def set_slot(self, slot: int, gen: int, told: int, k: int) -> None:
        """Write one row of the slot table; the newest proposal is forgotten."""
        _set_slot[(1,)](self.slots, slot, gen, told, k, FIELDS=SLOT_FIELDS)

    def clear(self) -> None:
        """Forget every slot and every count."""
        for tensor in (self.slots, self.flow, self.counters):
            tensor.zero_()

    def read(self) -> Figures:
        """Return the counters now, without waiting for what the main stream has to do."""
        return Figures(self._snapshot.read(), self.k_max)


class _Snapshot:
    """Reads a tensor on a stream of its own, which never waits for the main stream."""

    def __init__(self, source: torch.Tensor) -> None:
        self._source = source
        self._stream: Any = None
        if source.is_cuda:
            self._stream = torch.cuda.Stream(source.device)
            self._pinned = torch.empty(source.shape, dtype=source.dtype, pin_memory=True)

    def read(self) -> list[int]:
        if self._stream is None:
            values: list[int] = self._source.tolist()
            return values
        with torch.cuda.stream(self._stream):
            self._pinned.copy_(self._source, non_blocking=True)
        self._stream.synchronize()
        copied: list[int] = self._pinned.tolist()
        return copied


@triton.jit(do_not_specialize=["slot", "gen", "told", "k"])
def _set_slot(slots, slot, gen, told, k, FIELDS: tl.constexpr):  # type: ignore[no-untyped-def]
    row = slots + slot * FIELDS
    tl.store(row, gen)
    tl.store(row + 1, told)
    tl.store(row + 2, k)
    tl.store(row + 3, 0)
