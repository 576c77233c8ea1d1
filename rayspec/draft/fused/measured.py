"""Cuts of matrices that were measured; written by `load_tests/bench_fused.py --tune --write`."""

from __future__ import annotations

from typing import Final

from rayspec.draft.fused.tiles import Tile, TileKey

__all__ = ["MEASURED"]

MEASURED: Final[dict[TileKey, Tile]] = {}
