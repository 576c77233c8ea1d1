"""Drives a running application with a fixed number of users who wait for their answers."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from load_tests.prompts import WORKLOADS, sample
from rayspec.planning.calibrate_client import Client, Reply
from rayspec.routing.types import Lane

__all__ = ["LANE_OF", "POLICIES", "Answer", "Ask", "asks", "drive", "mean_latency", "throughput"]

POLICIES = ("routed", "always on", "always plain")
"""The router decides, everything speculates, nothing does."""

LANE_OF = {"routed": None, "always on": Lane.SPECULATIVE, "always plain": Lane.PLAIN}


@dataclass(frozen=True, slots=True)
class Ask:
    """A request; unless it is `named`, the application has to recognise its class."""

    workload: str
    text: str
    max_tokens: int
    named: bool = False

    def body(self, model: str) -> dict[str, Any]:
        """Return it as an OpenAI request."""
        name = {"metadata": {"workload_class": self.workload}} if self.named else {}
        return {
            "model": model,
            "messages": [{"role": "user", "content": self.text}],
            "temperature": 0,
            "max_tokens": self.max_tokens,
            **name,
        }


@dataclass(frozen=True, slots=True)
class Answer:
    """What a user met; seconds. `tpot_s` is None where there was one token."""

    workload: str
    lane: str
    prompt_tokens: int
    output_tokens: int
    ttft_s: float
    tpot_s: float | None
    total_s: float


def asks(
    count: int,
    *,
    seed: int,
    max_tokens: int,
    workloads: Collection[str] = WORKLOADS,
    named: bool = False,
) -> list[Ask]:
    """Return `count` requests of all classes in turns, with lengths that vary by their class.

    Answers are cut at half to one and a half times `max_tokens`, so that requests do not end
    together.
    """
    rng = random.Random(seed)
    return [
        Ask(prompt.workload, prompt.text, max(round(max_tokens * rng.uniform(0.5, 1.5)), 2), named)
        for prompt in sample(count, seed=seed, workloads=workloads)
    ]


async def drive(
    client: Client,
    model: str,
    requests: Sequence[Ask],
    users: int,
    lane: Lane | None,
    on_answer: Callable[[], None] = lambda: None,
    *,
    k: int | None = None,
) -> tuple[list[Answer], float]:
    """Let `users` work through `requests` in order; return the answers and the seconds it took.

    `k` is how many drafts the speculative lane makes where that is forced: left alone, the router
    would choose them.
    """
    answers: list[Answer | None] = [None] * len(requests)
    left = iter(range(len(requests)))

    async def user() -> None:
        for index in left:
            ask = requests[index]
            reply = await client.stream(
                ask.body(model), lane=lane, k=k if lane is Lane.SPECULATIVE else None
            )
            answers[index] = _answer(ask, reply)
            on_answer()

    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(users):
            group.create_task(user())
    return [answer for answer in answers if answer is not None], time.perf_counter() - started


def _answer(ask: Ask, reply: Reply) -> Answer:
    first, last, tokens = reply.chunks[0].at, reply.ended, reply.output_tokens
    return Answer(
        workload=reply.workload_class or ask.workload,
        lane=reply.lane,
        prompt_tokens=reply.prompt_tokens,
        output_tokens=tokens,
        ttft_s=reply.ttft_s,
        tpot_s=(last - first) / (tokens - reply.chunks[0].tokens)
        if tokens > reply.chunks[0].tokens
        else None,
        total_s=last - reply.sent,
    )


def throughput(answers: Sequence[Answer], seconds: float) -> float:
    """Return the output tokens a second of all users together."""
    return sum(answer.output_tokens for answer in answers) / seconds


def mean_latency(answers: Sequence[Answer]) -> float:
    """Return the mean seconds to a whole answer."""
    return statistics.fmean(answer.total_s for answer in answers)
