"""A deliberately bad draft: it proves that drafts cost speed at most, and serves as a load."""

from __future__ import annotations

import random
from collections.abc import Sequence

from rayspec.draft.base import DraftRequest
from rayspec.draft.mirror import DraftSequence

__all__ = ["RandomDrafter"]


class RandomDrafter:
    """Proposes uniformly random tokens, the same ones for the same seed."""

    def __init__(self, vocab_size: int, seed: int = 0) -> None:
        self._vocab_size = vocab_size
        self._random = random.Random(seed)

    def start(self) -> None:
        """Nothing to load."""

    def add(self, sequence: DraftSequence) -> None:
        """Nothing to remember."""

    def drop(self, sequence: DraftSequence) -> None:
        """Nothing to forget."""

    def draft(self, requests: Sequence[DraftRequest]) -> list[list[int]]:
        """Return `k` random tokens for each request."""
        pick = self._random.randrange
        return [[pick(self._vocab_size) for _ in range(request.k)] for request in requests]

    def work(self) -> bool:
        """Nothing to prepare."""
        return False

    def close(self) -> None:
        """Nothing to release."""
