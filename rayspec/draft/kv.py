"""Which cell of the KV cache holds which tokens.

Pure bookkeeping over the mirror's token lists, which are the truth. What a cell holds is a prefix
of them, so nothing is ever wrong with a cell; it may only have to be filled further.
"""

from __future__ import annotations

from collections import deque

from rayspec.draft.mirror import DraftSequence

__all__ = ["Cell", "CellPool"]


class Cell:
    """Row `index` of the KV cache, with positions below `filled` computed from `tokens`."""

    __slots__ = ("_drafted", "filled", "index", "sequence", "tokens")

    def __init__(self, index: int) -> None:
        self.index = index
        self.sequence: DraftSequence | None = None
        self.tokens: list[int] = []  # of the sequence, or of the one that left
        self.filled = 0
        self._drafted: list[int] = []  # computed beyond `filled`, as far as the target agrees

    def take(self, sequence: DraftSequence) -> None:
        """Give the cell to a sequence, keeping what they have in common."""
        self.filled = self.common(sequence.tokens)
        self._drafted = []
        self.sequence = sequence
        self.tokens = sequence.tokens

    def leave(self) -> None:
        """Free the cell; its content stays for a sequence that begins the same."""
        self._drafted = []
        self.sequence = None

    def common(self, tokens: list[int]) -> int:
        """Return how many positions of the cell are right for `tokens`."""
        low, high = 0, min(self.filled, len(tokens))
        if self.tokens[:high] == tokens[:high]:
            return high
        while high - low > 1:  # equal below `low`, different below `high`
            middle = (low + high) // 2
            if self.tokens[low:middle] == tokens[low:middle]:
                low = middle
            else:
                high = middle
        return low

    def settle(self) -> int:
        """Keep what was drafted right; return how many tokens are missing (at least the last)."""
        tokens, filled = self.tokens, self.filled
        for token in self._drafted:
            if filled >= len(tokens) or tokens[filled] != token:
                break
            filled += 1
        self._drafted = []
        # The last token is always computed again: its logits are what a draft begins with.
        self.filled = max(0, min(filled, len(tokens) - 1))
        return len(tokens) - self.filled

    def advance(self, count: int) -> None:
        """Note that the next `count` tokens are computed."""
        self.filled += count

    def drafted(self, tokens: list[int]) -> None:
        """Note that these tokens are computed beyond the sequence's end."""
        self._drafted = tokens


class CellPool:
    """Gives cells to sequences; those for which none is left wait in order."""

    def __init__(self, size: int) -> None:
        self._free = [Cell(index) for index in range(size)]
        self._used: dict[int, Cell] = {}
        self._waiting: deque[DraftSequence] = deque()

    @property
    def used(self) -> list[Cell]:
        """Cells that belong to a sequence."""
        return list(self._used.values())

    def get(self, sequence: DraftSequence) -> Cell | None:
        """Return the cell of a sequence; None while it waits for one."""
        return self._used.get(sequence.uid)

    def add(self, sequence: DraftSequence) -> None:
        """Give the free cell with the longest common prefix, or let the sequence wait."""
        if not self._free:
            self._waiting.append(sequence)
            return
        # Without a common prefix, overwrite the cell that holds least.
        best = max(self._free, key=lambda cell: (cell.common(sequence.tokens), -cell.filled))
        self._free.remove(best)
        best.take(sequence)
        self._used[sequence.uid] = best

    def drop(self, sequence: DraftSequence) -> None:
        """Free the cell of a sequence, for the first that waits."""
        cell = self._used.pop(sequence.uid, None)
        if cell is None:
            self._waiting.remove(sequence)
            return
        cell.leave()
        self._free.append(cell)
        if self._waiting:
            self.add(self._waiting.popleft())
