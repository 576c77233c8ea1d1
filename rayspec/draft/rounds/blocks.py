"""Which blocks of the KV cache belong to whom; pure bookkeeping.

Sequences that left keep their blocks until somebody needs them: the next turn of a conversation,
or the same request told again, then begins with its KV in place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["BlockPool", "Kept", "common_prefix"]


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """What a sequence left behind: KV of `tokens[:filled]` in `blocks`."""

    tokens: Sequence[int]
    filled: int
    blocks: list[int]


class BlockPool:
    """Gives out blocks 1 to `blocks` - 1; block 0 is where work that counts for nothing goes."""

    def __init__(self, blocks: int, block_size: int) -> None:
        self.block_size = block_size
        self.total = blocks - 1
        self._free = list(range(blocks - 1, 0, -1))
        self._kept: list[Kept] = []  # oldest first

    @property
    def used(self) -> int:
        """Blocks of live sequences."""
        return self.total - len(self._free) - sum(len(kept.blocks) for kept in self._kept)

    def blocks_for(self, positions: int) -> int:
        """Return how many blocks `positions` tokens need."""
        return -(-positions // self.block_size)

    def take(self, count: int) -> list[int] | None:
        """Return `count` blocks, if need be of sequences that left; None when there are too few."""
        if count > len(self._free) + sum(len(kept.blocks) for kept in self._kept):
            return None
        while len(self._free) < count:
            self._free.extend(self._kept.pop(0).blocks)
        taken = self._free[len(self._free) - count :]
        del self._free[len(self._free) - count :]
        return taken

    def give_back(self, blocks: Sequence[int]) -> None:
        """Free blocks whose content is worth nothing."""
        self._free.extend(blocks)

    def keep(self, tokens: Sequence[int], filled: int, blocks: list[int]) -> None:
        """Free blocks, but remember their content as long as nobody needs them."""
        useful = self.blocks_for(filled)
        self.give_back(blocks[useful:])
        if useful:
            self._kept.append(Kept(tokens, filled, blocks[:useful]))

    def recall(self, tokens: Sequence[int]) -> tuple[list[int], int]:
        """Return the blocks, and how many positions of them fit, of whoever began most alike.

        A match of less than a block is not worth the blocks that it would tie up.
        """
        best, most = None, self.block_size - 1
        for kept in self._kept:
            common = common_prefix(kept.tokens, tokens, kept.filled)
            if common > most:
                best, most = kept, common
        if best is None:
            return [], 0
        self._kept.remove(best)
        useful = self.blocks_for(most)
        self.give_back(best.blocks[useful:])
        return best.blocks[:useful], most


def common_prefix(one: Sequence[int], two: Sequence[int], most: int) -> int:
    """Return how many tokens, up to `most`, two lists have in common at their beginning."""
    low, high = 0, min(most, len(one), len(two))
    if one[:high] == two[:high]:
        return high
    while high - low > 1:  # equal below `low`, different below `high`
        middle = (low + high) // 2
        if one[low:middle] == two[low:middle]:
            low = middle
        else:
            high = middle
    return low
