"""Judges where two greedy answers part: a near tie that rounding decided, or something wrong.

Verifying several tokens at once, or in another batch, rounds differently from decoding one alone.
Where the two likeliest tokens are closer than that, either is the model's own answer. How close
they were is recomputed from the model itself, given everything up to that place.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["NEAR_TIE", "Parting", "Verdict", "judge", "parting"]

NEAR_TIE = 0.5
"""Nats between two tokens that rounding may decide: four steps of bfloat16 between 16 and 32, where
logits are."""


@dataclass(frozen=True, slots=True)
class Parting:
    """The first place where two answers differ; a token is None where its answer had ended."""

    position: int
    reference: int | None
    speculative: int | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """How close the two tokens of a parting were, in nats, and whether that explains it.

    `margin` is between the two, `behind` from the likeliest token to the better of them: a third
    token that the model clearly preferred is explained by no tie. Both are None where nothing could
    be computed. `at_least` says that a token was too unlikely to be listed: `margin` is a bound.
    """

    margin: float | None
    behind: float | None
    explained: bool
    reason: str
    at_least: bool = False


def parting(reference: Sequence[int], speculative: Sequence[int]) -> Parting | None:
    """Return where two answers part, None if they are equal."""
    for position, (a, b) in enumerate(zip(reference, speculative, strict=False)):
        if a != b:
            return Parting(position, a, b)
    at = min(len(reference), len(speculative))
    if len(reference) == len(speculative):
        return None
    longer = len(reference) > at
    return Parting(at, reference[at] if longer else None, None if longer else speculative[at])


def judge(where: Parting, logprobs: Mapping[int, float], limit: float) -> Verdict:
    """Say whether a near tie of at most `limit` nats explains `where`.

    `logprobs` are the likeliest tokens at that place, given all before it.
    """
    if where.reference is None or where.speculative is None:
        return Verdict(None, None, False, "one answer ended where the other went on")
    if not logprobs:
        return Verdict(None, None, False, "no log-probabilities for this place")
    lowest, highest = min(logprobs.values()), max(logprobs.values())
    a, b = (logprobs.get(token, -math.inf) for token in (where.reference, where.speculative))
    behind = highest - max(a, b, lowest)
    if math.inf in (-a, -b):
        margin = max(a, b, lowest) - lowest
        return Verdict(
            margin, behind, False, f"not among the {len(logprobs)} likeliest tokens", True
        )
    margin = abs(a - b)
    if behind > limit:
        return Verdict(margin, behind, False, "the model prefers a third token")
    if margin > limit:
        return Verdict(margin, behind, False, "the model clearly prefers one of the two")
    return Verdict(margin, behind, True, "near tie")
