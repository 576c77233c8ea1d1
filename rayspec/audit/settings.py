"""What a verification is told."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from rayspec.audit.lossless import NEAR_TIE

__all__ = ["FailOn", "Settings"]


class FailOn(StrEnum):
    """Which differences of greedy answers fail a verification."""

    UNEXPLAINED = "unexplained"
    EXPLAINED = "explained"


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is asked, and what counts as equal.

    `rounds` greedy answers of each prompt and lane, up to `max_tokens` long; `samples` sampled ones
    of each of `sample_prompts` prompts and lane, `sample_tokens` long. `concurrency` requests at a
    time while speed is measured, `sample_concurrency` while it is not. `margin` in nats; `alpha` is
    the chance of a false alarm of all distribution tests together.
    """

    max_tokens: int = 64
    rounds: int = 1
    concurrency: int = 1
    margin: float = NEAR_TIE
    samples: int = 200
    sample_prompts: int = 3
    sample_tokens: int = 12
    sample_concurrency: int = 8
    temperature: float = 1.0
    alpha: float = 0.01
