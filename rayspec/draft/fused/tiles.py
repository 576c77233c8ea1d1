"""How each matrix is cut into programs, by rule; `measured` has those that were measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["Role", "Tile", "TileKey", "choose_tile", "padded_rows"]

Role = Literal["qkv", "out", "gate_up", "down", "head"]
# (role, outputs N, inputs K, padded rows)
TileKey = tuple[Role, int, int, int]

# Roles whose result may be summed up from several programs.
_SPLITTABLE: Final = frozenset({"qkv", "out", "down"})
_MOST_ROWS_IN_REGISTERS: Final = 2
_MANY_INPUTS: Final = 4096
_STAGED_BYTES: Final = 100_000


@dataclass(frozen=True, slots=True)
class Tile:
    """A program computes `bn` outputs from `bk` inputs at a time, of 1 / `split` of all inputs."""

    bn: int
    bk: int
    split: int = 1
    warps: int = 4
    stages: int = 4


def padded_rows(rows: int) -> int:
    """Return the rows of a tile that holds `rows`: few exactly, more as tensor cores want them."""
    size = 1 << (rows - 1).bit_length()
    return size if rows <= _MOST_ROWS_IN_REGISTERS else min(64, max(16, size))


def choose_tile(role: Role, outputs: int, inputs: int, rows: int, processors: int) -> Tile:
    """Return the tile for `rows` (padded) on a device with so many multiprocessors.

    By rule, every processor gets two programs where the matrix is large enough, because one
    program alone does not keep enough loads in flight.
    """
    if rows > _MOST_ROWS_IN_REGISTERS:
        return _wide(role, outputs, inputs, rows, processors)
    bk = min(_ceil_power(inputs), 512)
    bn = 16
    while bn > 2 and -(-outputs // bn) < 2 * processors:
        bn //= 2
    split = 1
    if role in _SPLITTABLE:
        while split < 8 and -(-outputs // bn) * split < processors and inputs // (2 * split) >= bk:
            split *= 2
    return Tile(bn, bk, split)


def _wide(role: Role, outputs: int, inputs: int, rows: int, processors: int) -> Tile:
    """Return a tile for tensor cores: one wave, with a turn's loads and the next's under way.

    Half of the shared memory stays free, so that the next kernel can start beside this one.
    """
    enough = processors * 3 // 5
    bn = next((size for size in (128, 64, 32) if outputs // size >= enough), 16)
    largest = 64 if bn == 128 else 128
    bk = next(size for size in (largest, 64, 32, 16) if inputs % size == 0)
    turns = inputs // bk
    split = 1
    # Tall tiles read the input less often; it is worth adding up parts where inputs are many.
    if role in _SPLITTABLE and bn < 64 and (role == "qkv" or inputs >= _MANY_INPUTS):
        most = 4 if role == "qkv" else 8
        fitting = [n for n in range(1, most + 1) if turns % n == 0]
        split = next((n for n in fitting if outputs // 64 * n >= enough), fitting[-1])
        bn = 64 if split > 1 else bn
    stages = min(turns // split + 1, _STAGED_BYTES // (2 * bk * (bn + rows)), 8)
    return Tile(bn, bk, split, warps=4, stages=max(2, stages))


def _ceil_power(value: int) -> int:
    return 1 << (value - 1).bit_length()
