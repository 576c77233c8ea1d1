"""How long prompts and answers are: lognormal, as in published traces of chat services."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

__all__ = ["Lengths"]


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens: a lognormal of this median and spread (of the logarithm), cut at both ends."""

    median: float
    sigma: float
    least: int
    most: int

    def __post_init__(self) -> None:
        if not (0 < self.least <= self.median <= self.most and self.sigma >= 0):
            raise ValueError(f"no distribution of lengths: {self}")

    def draw(self, rng: random.Random) -> int:
        """Return one length."""
        length = rng.lognormvariate(math.log(self.median), self.sigma)
        return round(min(max(length, self.least), self.most))

    def scaled(self, factor: float) -> Lengths:
        """Return the same shape, `factor` times as long."""
        return Lengths(
            max(self.median * factor, 1.0),
            self.sigma,
            max(int(self.least * factor), 1),
            max(math.ceil(self.most * factor), 1),
        )
