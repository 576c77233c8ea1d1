"""Step frames: one static int32 tensor per step and direction.

A frame is [slots + 1, width]: a header row, then one row per slot.

    target → draft  header: magic|version, epoch, step, cseq_required, n_active, k_want, flags, sum
                    row:    gen, n_tok (0..K+1; -1 = not in this step), tokens…
    draft → target  header: magic|version, epoch, step, n_active, t_draft_us
                    row:    gen, n_draft (0..K; -1 = not in this step), tokens…
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from rayspec.errors import LinkError
from rayspec.link.messages import WIRE_VERSION

__all__ = ["D2T", "D2T_MAGIC", "HEADER_WORDS", "T2D", "T2D_MAGIC", "FrameShape", "StepRow"]

HEADER_WORDS = 8
T2D_MAGIC = 0x52530000 | WIRE_VERSION
D2T_MAGIC = 0x52540000 | WIRE_VERSION
_HAS_CHECKSUM = 1
_INT32_MAX = 2**31 - 1


@dataclass(frozen=True, slots=True)
class FrameShape:
    """Static size of the frames of one link."""

    slots: int
    k_max: int

    @property
    def width(self) -> int:
        """Words in a row: generation, count and K+1 tokens, but never less than the header."""
        return max(HEADER_WORDS, self.k_max + 3)

    @property
    def size(self) -> tuple[int, int]:
        """Rows and words of the tensor."""
        return self.slots + 1, self.width


@dataclass(frozen=True, slots=True)
class StepRow:
    """One slot in one step: its new tokens, or its drafts."""

    slot: int
    gen: int
    tokens: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class T2D:
    """One executed step, as the target tells it."""

    epoch: int
    step: int
    cseq_required: int
    k_want: int
    rows: Sequence[StepRow]
    checksum: int | None = None

    def pack(self, shape: FrameShape) -> torch.Tensor:
        """Return the frame; a row that does not fit is a ValueError."""
        flags = 0 if self.checksum is None else _HAS_CHECKSUM
        header = (
            T2D_MAGIC,
            self.epoch,
            self.step,
            self.cseq_required,
            len(self.rows),
            self.k_want,
            flags,
            self.checksum or 0,
        )
        return _pack(header, self.rows, shape, shape.k_max + 1)

    @classmethod
    def unpack(cls, frame: torch.Tensor, shape: FrameShape) -> T2D:
        """Return the step in a frame; raises LinkError when it is malformed."""
        header, rows = _unpack(frame, shape, T2D_MAGIC, 4, shape.k_max + 1)
        if not 0 <= header[5] <= shape.k_max:
            raise LinkError(f"step frame wants {header[5]} drafts, at most {shape.k_max} fit")
        checksum = header[7] if header[6] & _HAS_CHECKSUM else None
        return cls(header[1], header[2], header[3], header[5], rows, checksum)


@dataclass(frozen=True, slots=True)
class D2T:
    """The drafts for one step, and how long they took."""

    epoch: int
    step: int
    t_draft_us: int
    rows: Sequence[StepRow]

    def pack(self, shape: FrameShape) -> torch.Tensor:
        """Return the frame; a row that does not fit is a ValueError."""
        took = min(self.t_draft_us, _INT32_MAX)
        header = (D2T_MAGIC, self.epoch, self.step, len(self.rows), took)
        return _pack(header, self.rows, shape, shape.k_max)

    @classmethod
    def unpack(cls, frame: torch.Tensor, shape: FrameShape) -> D2T:
        """Return the drafts in a frame; raises LinkError when it is malformed."""
        header, rows = _unpack(frame, shape, D2T_MAGIC, 3, shape.k_max)
        return cls(header[1], header[2], header[4], rows)


def _pack(
    header: Sequence[int], rows: Sequence[StepRow], shape: FrameShape, most: int
) -> torch.Tensor:
    words = np.full(shape.size, -1, dtype=np.int32)
    words[0, : len(header)] = header
    for row in rows:
        count = len(row.tokens)
        if not 0 <= row.slot < shape.slots or count > most:
            raise ValueError(f"slot {row.slot} with {count} tokens does not fit into {shape}")
        line = words[row.slot + 1]
        line[0] = row.gen
        line[1] = count
        if count:
            line[2 : 2 + count] = row.tokens
    return torch.from_numpy(words)


def _unpack(
    frame: torch.Tensor, shape: FrameShape, magic: int, active_at: int, most: int
) -> tuple[list[int], list[StepRow]]:
    words = frame.numpy()
    if words.shape != shape.size or words.dtype != np.int32:
        raise LinkError(f"step frame is {words.dtype}{words.shape}, expected int32{shape.size}")
    header: list[int] = words[0].tolist()
    if header[0] != magic:
        raise LinkError(f"step frame starts with {header[0]:#x}, expected {magic:#x}")
    counts = words[1:, 1]
    if ((counts < -1) | (counts > most)).any():
        raise LinkError(f"step frame has a row of {counts.max()} tokens, at most {most} fit")
    rows = []
    for slot in np.flatnonzero(counts >= 0).tolist():
        gen, count, *tokens = words[slot + 1].tolist()
        rows.append(StepRow(slot, gen, tuple(tokens[:count])))
    if len(rows) != header[active_at]:
        raise LinkError(f"step frame has {len(rows)} rows, its header says {header[active_at]}")
    return header, rows
