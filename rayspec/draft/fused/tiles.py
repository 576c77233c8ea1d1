"""How each matrix is cut into programs: measured where there is a measurement, else by rule."""

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


@dataclass(frozen=True, slots=True)
class Tile:
    """A program computes `bn` outputs from `bk` inputs at a time, of 1 / `split` of all inputs."""

    bn: int
    bk: int
    split: int = 1
    warps: int = 4
    stages: int = 4


# Filled from `load_tests/bench_fused.py --tune`.
MEASURED: Final[dict[TileKey, Tile]] = {}


def padded_rows(rows: int) -> int:
    """Return the rows of a tile that holds `rows`: few exactly, more as tensor cores want them."""
    size = 1 << (rows - 1).bit_length()
    return size if rows <= _MOST_ROWS_IN_REGISTERS else min(64, max(16, size))


def choose_tile(role: Role, outputs: int, inputs: int, rows: int, processors: int) -> Tile:
    """Return the tile for `rows` (padded) on a device with so many multiprocessors.

    By rule, every processor gets two programs where the matrix is large enough, because one
    program alone does not keep enough loads in flight.
    """
    measured = MEASURED.get((role, outputs, inputs, rows))
    if measured is not None:
        return measured
    in_registers = rows < 16
    largest = 16 if in_registers else 64
    smallest = 2 if in_registers else 16
    bk = min(_ceil_power(inputs), 512 if in_registers else 128)
    bn = largest
    while bn > smallest and -(-outputs // bn) < 2 * processors:
        bn //= 2
    split = 1
    if role in _SPLITTABLE:
        while split < 8 and -(-outputs // bn) * split < processors and inputs // (2 * split) >= bk:
            split *= 2
    # Tiles of 64 rows leave shared memory for fewer stages.
    return Tile(bn, bk, split, warps=4, stages=4 if rows <= 16 else 3)


def _ceil_power(value: int) -> int:
    return 1 << (value - 1).bit_length()
