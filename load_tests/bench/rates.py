"""Synthetic acceptance: from a mean number of tokens per step to vLLM's rates per position.

vLLM's `synthetic_acceptance_rates[i]` is the probability that the first i+1 drafts are all
accepted; given a mean length alone it makes all steps as equal as it can. Here every draft is
accepted with the same probability `a` given that those before it were, as a draft of even quality
is: a step of K drafts yields 1 + a + … + a^K tokens, with the spread that real steps have.
"""

from __future__ import annotations

__all__ = ["acceptance_for", "expected_tokens", "position_rates"]


def expected_tokens(acceptance: float, k: int) -> float:
    """Return the mean tokens of a step with `k` drafts."""
    return sum(acceptance**i for i in range(k + 1))


def acceptance_for(mean_tokens: float, k: int) -> float:
    """Return the acceptance with which a step of `k` drafts yields `mean_tokens` tokens.

    Raises ValueError for a mean outside 1..k+1.
    """
    if not 1.0 <= mean_tokens <= k + 1:
        raise ValueError(f"{k} drafts a step yield 1 to {k + 1} tokens, not {mean_tokens}")
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if expected_tokens(middle, k) < mean_tokens:
            low = middle
        else:
            high = middle
    return high


def position_rates(acceptance: float, k: int) -> list[float]:
    """Return vLLM's `synthetic_acceptance_rates` for `k` drafts."""
    return [acceptance ** (i + 1) for i in range(k)]
