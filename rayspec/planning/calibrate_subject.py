"""The application that is calibrated, as it presents itself before anything is measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from rayspec.errors import ConfigError
from rayspec.planning.calibrate_client import Client, most_drafts, sample_sum
from rayspec.planning.calibrate_prompts import Prompt, TokenPool
from rayspec.planning.calibration import CALIBRATED, WITHOUT_ALTERNATIVE
from rayspec.routing.types import Lane

__all__ = ["Subject", "meet"]

# Prompts that the made ones are cut from.
_POOLED: Final = 32


@dataclass(frozen=True, slots=True)
class Subject:
    """What is to be measured, and with what.

    `k_max` is the most drafts per step, 0 without a speculative lane, `max_len` the longest
    sequence, `answered` the requests that the application had answered before. Every prompt has a
    class, and `pool` makes others of any length.
    """

    model: str
    lanes: tuple[Lane, ...]
    k_max: int
    max_len: int
    answered: float
    prompts: Sequence[Prompt]
    pool: TokenPool


async def meet(client: Client, prompts: Sequence[Prompt]) -> Subject:
    """Ask the application what it is; ConfigError if it cannot be calibrated as it is."""
    health = await client.lanes()
    if Lane.ALTERNATIVE in health:
        raise ConfigError("alternative", client.url, WITHOUT_ALTERNATIVE)
    lanes = tuple(lane for lane in CALIBRATED if health.get(lane, {}).get("replicas"))
    if not lanes:
        raise ConfigError("url", client.url, "no lane is ready yet; try again later")
    for lane in lanes:
        if (replicas := health[lane]["replicas"]) > 1:
            raise ConfigError(
                f"{lane}.num_replicas",
                replicas,
                "calibrate one engine a lane: its load must be known; set it to 1 meanwhile",
            )
    scrape = await client.metrics()
    if running := sample_sum(scrape, "vllm:num_requests_running"):
        raise ConfigError(
            "url",
            client.url,
            f"{running:.0f} requests of others are running: calibrate an idle application",
        )
    k_max = most_drafts(scrape)
    if Lane.SPECULATIVE in lanes and not (k_max and health[Lane.SPECULATIVE]["draft_attached"]):
        raise ConfigError("url", client.url, "no draft is attached: wait until /health says so")
    model = await client.model()
    tokenised = [
        await client.tokenize({**prompt.body, "model": model}) for prompt in _spread(prompts)
    ]
    return Subject(
        model=model,
        lanes=lanes,
        k_max=k_max,
        max_len=min(longest for _, longest in tokenised),
        answered=sample_sum(scrape, "rayspec_requests_total"),
        prompts=[await _classified(client, prompt, model) for prompt in prompts],
        pool=TokenPool([tokens for tokens, _ in tokenised]),
    )


async def _classified(client: Client, prompt: Prompt, model: str) -> Prompt:
    """Let the application say the class of a prompt that has none."""
    if prompt.workload_class:
        return prompt
    reply = await client.stream({**prompt.body, "model": model, "max_tokens": 1})
    return replace(prompt, workload_class=reply.workload_class)


def _spread(prompts: Sequence[Prompt]) -> Sequence[Prompt]:
    """Return not too many prompts, from all over the list."""
    return prompts[:: -(-len(prompts) // _POOLED)]
