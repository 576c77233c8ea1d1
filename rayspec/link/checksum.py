"""Checksum over what both ends believe about the live sequences.

A CRC is carried on token by token, so a step costs its new tokens and never the context.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence

import numpy as np

__all__ = ["TokenHash", "sequence_checksum"]


class TokenHash:
    """Running hash of one growing token list."""

    __slots__ = ("crc", "length")

    def __init__(self, tokens: Sequence[int] = ()) -> None:
        self.crc = 0
        self.length = 0
        self.extend(tokens)

    def extend(self, tokens: Sequence[int]) -> None:
        """Take up tokens appended to the list."""
        self.crc = zlib.crc32(np.asarray(tokens, dtype="<i4").tobytes(), self.crc)
        self.length += len(tokens)


def sequence_checksum(live: Iterable[tuple[int, int, TokenHash]]) -> int:
    """Return a non-negative int32 over (slot, gen, hash) of the live slots, in any order."""
    total = 0
    for slot, gen, tokens in live:
        total += zlib.crc32(struct.pack("<iiiI", slot, gen, tokens.length, tokens.crc))
    return total & 0x7FFFFFFF
