"""Prompt lookup: propose what followed the last time the sequence ended like this."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rayspec.draft.base import DraftRequest
from rayspec.draft.mirror import DraftSequence

__all__ = ["NgramDrafter"]

# Tokens indexed in one piece of background work: about a millisecond.
_PIECE: Final = 512


class NgramDrafter:
    """Longest match first, newest occurrence first; the index grows with the sequence."""

    def __init__(self, min_n: int = 2, max_n: int = 4) -> None:
        if not 1 <= min_n <= max_n:
            raise ValueError(f"n-gram sizes {min_n}..{max_n} are no range from 1 upwards")
        self._min_n = min_n
        self._max_n = max_n
        self._indexes: dict[int, _Index] = {}

    def start(self) -> None:
        """Nothing to load."""

    def add(self, sequence: DraftSequence) -> None:
        """Begin an empty index."""
        self._indexes[sequence.uid] = _Index(sequence.tokens, self._min_n, self._max_n)

    def drop(self, sequence: DraftSequence) -> None:
        """Forget the index."""
        self._indexes.pop(sequence.uid, None)

    def draft(self, requests: Sequence[DraftRequest]) -> list[list[int]]:
        """Copy what followed the newest earlier occurrence of the last n tokens."""
        drafts = []
        for request in requests:
            index = self._indexes[request.sequence.uid]
            ready = index.backlog <= _PIECE
            if ready:
                index.advance(_PIECE)
            drafts.append(index.continuation(request.k) if ready else [])
        return drafts

    def work(self) -> bool:
        """Index a piece of one long prompt."""
        for index in self._indexes.values():
            if index.backlog > 0:
                index.advance(_PIECE)
                return True
        return False

    def close(self) -> None:
        """Forget everything."""
        self._indexes.clear()


class _Index:
    """For each n-gram that has a successor: where its newest one is."""

    def __init__(self, tokens: list[int], min_n: int, max_n: int) -> None:
        self._tokens = tokens
        self._sizes = range(min_n, max_n + 1)
        self._successor: dict[tuple[int, ...], int] = {}
        self._done = 0  # positions below this one are entered as successors

    @property
    def backlog(self) -> int:
        return len(self._tokens) - self._done

    def advance(self, most: int) -> None:
        tokens = self._tokens
        end = min(len(tokens), self._done + most)
        for position in range(self._done, end):
            for n in self._sizes:
                if n > position:
                    break
                self._successor[tuple(tokens[position - n : position])] = position
        self._done = end

    def continuation(self, k: int) -> list[int]:
        tokens = self._tokens
        for n in reversed(self._sizes):
            if n > len(tokens):
                continue
            found = self._successor.get(tuple(tokens[-n:]))
            if found is not None:
                # A match near the end is read on into its own copy: a repetition continues.
                period = len(tokens) - found
                copied = tokens[found : found + k]
                return [copied[i] if i < period else copied[i % period] for i in range(k)]
        return []
