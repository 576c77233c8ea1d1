"""Finds where greedy answers of the two lanes part, and asks the model how close it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rayspec.audit.client import Client
from rayspec.audit.lossless import Parting, Verdict, judge, parting
from rayspec.audit.turns import Pair

__all__ = ["Difference", "differences", "unstable"]

_BEFORE, _AFTER = 40, 16


@dataclass(frozen=True, slots=True)
class Difference:
    """Two greedy answers to one prompt that are not the same, with their text around the place."""

    prompt: int
    workload_class: str
    asked: str
    where: Parting
    reference_text: str
    speculative_text: str
    verdict: Verdict
    before: str
    reference_goes_on: str
    speculative_goes_on: str


async def differences(client: Client, pairs: Sequence[Pair], limit: float) -> list[Difference]:
    """Return the first difference of every pair that has one."""
    return [found for pair in pairs if (found := await _difference(client, pair, limit))]


def unstable(pairs: Sequence[Pair]) -> int:
    """Count the prompts to which the plain lane by itself gave different answers."""
    return sum(len({answer.tokens for answer in pair.plain}) > 1 for pair in pairs)


async def _difference(client: Client, pair: Pair, limit: float) -> Difference | None:
    reference = pair.plain[0]
    for answer in pair.speculative:
        where = parting(reference.tokens, answer.tokens)
        if where is not None:
            break
    else:
        return None
    at = where.position
    shared = reference.tokens[:at]
    if pair.prompt.reshaped is not None:
        reason = f"{pair.prompt.reshaped} changes logits, so their margin cannot be recomputed"
        verdict = Verdict(None, None, False, reason)
    else:
        tokens = [*reference.prompt_tokens, *shared]
        verdict = judge(where, await client.likeliest(tokens, pair.prompt), limit)
    return Difference(
        prompt=pair.prompt.number,
        workload_class=pair.workload_class,
        asked=pair.prompt.preview,
        where=where,
        reference_text=await client.text(reference.tokens[at : at + 1]),
        speculative_text=await client.text(answer.tokens[at : at + 1]),
        verdict=verdict,
        before=await client.text(shared[-_BEFORE:]),
        reference_goes_on=await client.text(reference.tokens[at : at + _AFTER]),
        speculative_goes_on=await client.text(answer.tokens[at : at + _AFTER]),
    )
