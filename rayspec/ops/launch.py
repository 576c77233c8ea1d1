"""Launches the verification kernels: lays out their workspace and packs their one argument."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import torch

from rayspec.ops.batch import Batch

__all__ = [
    "SUMMARY_BYTES",
    "Launcher",
    "Shard",
    "launch_sharded",
    "launch_verify",
]

# Constants of the kernels.
TILE_BYTES: Final = 2048
SUMMARY_BYTES: Final = 32
_ROW_BYTES: Final = 64
# `Arguments` of kernels/include/rows.cuh: pointers, strides, sizes.
_ARGUMENTS: Final = struct.Struct("=25Q3q14i")
_SUMMARIES_AT: Final = 7 * 8
_DTYPES: Final = {
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
    torch.float32: "float32",
}
# Blocks of the reading kernel that a multiprocessor holds.
_RESIDENT: Final = 4


class Launcher(Protocol):
    """Something that runs the kernels, of `threads` threads a block."""

    threads: int
    multiprocessors: int

    def launch(
        self,
        name: str,
        grid: tuple[int, int],
        threads: int,
        argument: ctypes.Array[ctypes.c_char],
        *,
        early: bool = False,
    ) -> None:
        """Run a kernel; one that is `early` may start before the one before it has ended."""


@dataclass(frozen=True, slots=True)
class Shard:
    """Which columns of a vocabulary a rank has: part `index` of `count`, each `width` wide.

    Those from `vocab` on are padding.
    """

    index: int
    count: int
    width: int
    vocab: int

    @property
    def first(self) -> int:
        """Its first column."""
        return self.index * self.width

    @property
    def columns(self) -> int:
        """How many of its columns are tokens."""
        return max(0, min(self.width, self.vocab - self.first))


@dataclass(frozen=True, slots=True)
class _Workspace:
    """Where the kernels keep what they know, as `addresses` into one allocation.

    They are those of rows, verdicts, named_ids, named_q, requests_done, rows_done and stats.
    """

    addresses: tuple[int, ...]
    holder: torch.Tensor

    @classmethod
    def of(cls, batch: Batch, named: int, tiles: int) -> _Workspace:
        n, requests = batch.logits.shape[0], batch.slot_of.shape[0]
        sizes = (n * _ROW_BYTES, n * 8, n * named * 4, n * named * 4, requests * 4, n * 4)
        starts, end = [], 0
        for size in (*sizes, n * tiles * 8):
            starts.append(end)
            end += -(-size // 16) * 16
        holder = torch.empty(end, dtype=torch.uint8, device=batch.logits.device)
        base = holder.data_ptr()
        return cls(tuple(base + start for start in starts), holder)


def tiles_per_warp(tiles: int, rows: int, launcher: Launcher) -> int:
    """Return how many tiles a warp reads one after the other.

    As many as make one wave of blocks, which was the fastest cut of those that
    load_tests/tune_verify.py tried at 6, 96 and 384 rows.
    """
    parts = max(1, launcher.multiprocessors * _RESIDENT // max(rows, 1))
    return max(1, -(-tiles // (launcher.threads // 32 * parts)))


class _Call:
    """The kernels' argument for one batch, and what it points to."""

    def __init__(
        self,
        launcher: Launcher,
        batch: Batch,
        *,
        shard: Shard | None,
        summaries: torch.Tensor | None,
        run: int | None,
        apart: bool = False,
    ) -> None:
        n, width = batch.logits.shape
        shard = shard or Shard(0, 1, width, width)
        vocab = shard.columns
        requests, places = batch.slot_of.shape[0], batch.k_max + 1
        tiles = -(-vocab * batch.logits.element_size() // TILE_BYTES)
        named = 1 if batch.q_ids is None else batch.q_ids.shape[2]
        device = batch.logits.device
        self.sampled = torch.empty((requests, places), dtype=torch.int64, device=device)
        self.num_sampled = torch.empty(requests, dtype=torch.int32, device=device)
        self.space = _Workspace.of(batch, named, tiles)
        run = run or tiles_per_warp(tiles, n, launcher)
        self.parts = -(-tiles // (launcher.threads // 32 * run))
        q = batch.q_ids
        self.packed = ctypes.create_string_buffer(
            _ARGUMENTS.pack(
                *self.space.addresses,
                _address(summaries),
                *map(
                    _address,
                    (
                        batch.logits,
                        batch.draft_ids,
                        batch.invalid,
                        batch.n_valid,
                        batch.cu_num_logits,
                        batch.slot_of,
                        batch.temperature,
                        batch.top_k,
                        batch.top_p,
                        batch.min_p,
                        batch.seeds,
                        batch.positions,
                        batch.step,
                        q,
                        batch.q_logits,
                        self.sampled,
                        self.num_sampled,
                    ),
                ),
                batch.logits.stride(0),
                0 if q is None else q.stride(0),
                0 if q is None else q.stride(1),
                n,
                requests,
                places,
                vocab,
                tiles,
                named,
                self.parts,
                run,
                shard.count,
                shard.first,
                shard.index * -(-width * batch.logits.element_size() // TILE_BYTES),
                shard.vocab,
                apart,
                0,
            ),
            _ARGUMENTS.size,
        )

    def read(self, launcher: Launcher, batch: Batch) -> str:
        """Launch what describes the rows and reads them; return the type's name."""
        kind = _DTYPES[batch.logits.dtype]
        launcher.launch("rayspec_prepare", self.sampled.shape, 32, self.packed)
        launcher.launch(
            f"rayspec_read_rows_{kind}",
            (self.parts * batch.logits.shape[0], 1),
            launcher.threads,
            self.packed,
            early=True,
        )
        return kind


def _address(tensor: torch.Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def launch_verify(
    launcher: Launcher, batch: Batch, *, run: int | None = None, apart: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Verify a batch: return `sampled` and `num_sampled` as `rayspec.ops.verify.verify` does.

    For measurements: `run` is how many tiles a warp reads one after the other, and `apart` has a
    kernel of its own decide the rows even if nobody truncates.
    """
    n, requests = batch.logits.shape[0], batch.slot_of.shape[0]
    apart = apart or batch.truncates
    call = _Call(launcher, batch, shard=None, summaries=None, run=run, apart=apart)
    if n == 0 or requests == 0:
        return call.sampled.fill_(-1), call.num_sampled.zero_()
    kind = call.read(launcher, batch)
    if apart:
        launcher.launch(
            f"rayspec_resolve_rows_{kind}", (n, 1), launcher.threads, call.packed, early=True
        )
    return call.sampled, call.num_sampled


def launch_sharded(
    launcher: Launcher,
    batch: Batch,
    shard: Shard,
    gather: Callable[[torch.Tensor], torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Verify a batch whose logits are a shard, as `rayspec.ops.sharded.verify_sharded` does."""
    n, requests = batch.logits.shape[0], batch.slot_of.shape[0]
    summaries = torch.empty((n, SUMMARY_BYTES), dtype=torch.uint8, device=batch.logits.device)
    call = _Call(launcher, batch, shard=shard, summaries=summaries, run=None)
    if n == 0 or requests == 0:
        return call.sampled.fill_(-1), call.num_sampled.zero_()
    call.read(launcher, batch)
    gathered = gather(summaries)
    struct.pack_into("=Q", call.packed, _SUMMARIES_AT, gathered.data_ptr())
    launcher.launch("rayspec_combine", (requests, 1), 32, call.packed)
    return call.sampled, call.num_sampled
