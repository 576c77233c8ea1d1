"""Prompts as token ids: random ones for dummy weights, real ones for real acceptance."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Prompts"]


@dataclass(frozen=True)
class Prompts:
    """Where a run's prompts come from: `texts` as token ids, or random ids when there are none."""

    vocab_size: int
    length: int
    texts: Sequence[Sequence[int]] = ()

    def take(self, count: int, seed: int) -> list[list[int]]:
        """Return `count` prompts; the same ones for the same seed, whatever the system."""
        rng = random.Random(seed)
        if self.texts:
            start = rng.randrange(len(self.texts))
            return [list(self.texts[(start + i) % len(self.texts)]) for i in range(count)]
        return [
            [rng.randrange(10, self.vocab_size) for _ in range(self.length)] for _ in range(count)
        ]
