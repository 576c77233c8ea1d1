"""Explains why two greedy texts differ: a near tie that rounding decided, or something wrong.

Verifying several tokens at once, or in another batch, rounds differently from decoding one alone.
Where the two likeliest tokens are closer than that, either text is the model's own answer. An
answer with log-probabilities shows how close they were where the texts part.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["Tokens", "margin"]

# `choices[0].logprobs.content` of an OpenAI chat answer with `top_logprobs`.
Tokens = Sequence[Mapping[str, Any]]


def margin(tokens: Tokens, text: str) -> float:
    """Return by how much `tokens` preferred their own way where `text` leaves it, in nats.

    0 where it never does; infinity where what `text` says instead was not among the likely tokens,
    which rounding cannot explain.
    """
    told = text.encode()
    at = 0
    for token in tokens:
        own = _bytes(token)
        if own is not None and told.startswith(own, at):
            at += len(own)
            continue
        if own is None and at == len(told):
            continue  # a token that is not text, such as the end of the answer
        others = [other for other in token["top_logprobs"] if other["token"] != token["token"]]
        fitting = [other for other in others if _continues(other, told, at)]
        likeliest = max((other["logprob"] for other in fitting), default=-math.inf)
        return float(token["logprob"] - likeliest)
    return 0.0 if at == len(told) else math.inf


def _continues(token: Mapping[str, Any], told: bytes, at: int) -> bool:
    own = _bytes(token)
    if own is None:
        return at == len(told)
    return bool(own) and told.startswith(own, at)


def _bytes(token: Mapping[str, Any]) -> bytes | None:
    """Return a token's text; None for one that answers do not show, such as `<|im_end|>`."""
    shown: str = token["token"]
    if (shown.startswith("<|") and shown.endswith("|>")) or shown in ("<s>", "</s>"):
        return None
    raw = token.get("bytes")
    return shown.encode() if raw is None else bytes(raw)
