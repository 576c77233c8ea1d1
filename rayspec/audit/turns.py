"""Asks both lanes the same in turns, so that a machine that gets slower slows both."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rayspec.audit.client import Answer, Client
from rayspec.audit.prompts import COMPARED, Prompt
from rayspec.audit.settings import Settings
from rayspec.routing.types import Lane

__all__ = ["Pair", "Samples", "ask_greedy", "ask_sampled"]

Tick = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Pair:
    """What both lanes answered to one prompt, round by round."""

    prompt: Prompt
    plain: tuple[Answer, ...]
    speculative: tuple[Answer, ...]

    @property
    def workload_class(self) -> str:
        """The class that the application put the request in."""
        return self.plain[0].workload_class


@dataclass(frozen=True, slots=True)
class Samples:
    """Many sampled answers of both lanes to one prompt."""

    prompt: Prompt
    plain: tuple[Answer, ...]
    speculative: tuple[Answer, ...]


@dataclass(frozen=True, slots=True)
class _Question:
    """One answer that is wanted from each lane; `seeds` are for the plain and the other lane."""

    prompt: Prompt
    seeds: tuple[int, int] | None = None


async def ask_greedy(
    client: Client, prompts: Sequence[Prompt], settings: Settings, tick: Tick
) -> list[Pair]:
    """Return the greedy answers of both lanes; nothing is timed before each has answered once."""
    for lane in COMPARED:
        await client.ask(prompts[0], lane, 2, temperature=0)
    questions = [_Question(prompt) for _ in range(settings.rounds) for prompt in prompts]
    answers = await _in_turns(
        client, questions, settings.concurrency, tick, settings.max_tokens, temperature=0
    )
    return [
        Pair(
            prompt,
            tuple(answers[prompt.number, Lane.PLAIN]),
            tuple(answers[prompt.number, Lane.SPECULATIVE]),
        )
        for prompt in prompts
    ]


async def ask_sampled(
    client: Client, prompts: Sequence[Prompt], settings: Settings, tick: Tick
) -> list[Samples]:
    """Return sampled answers of both lanes, whose seeds all differ.

    With one seed both lanes would draw the same random numbers where nothing is drafted, and
    samples that depend on each other hide a difference.
    """
    found = []
    for prompt in prompts:
        own = prompt.body.get("temperature")
        questions = [_Question(prompt, (2 * n, 2 * n + 1)) for n in range(settings.samples)]
        answers = await _in_turns(
            client,
            questions,
            settings.sample_concurrency,
            tick,
            settings.sample_tokens,
            temperature=own or settings.temperature,
        )
        found.append(
            Samples(
                prompt,
                tuple(answers[prompt.number, Lane.PLAIN]),
                tuple(answers[prompt.number, Lane.SPECULATIVE]),
            )
        )
    return found


async def _in_turns(
    client: Client,
    questions: Sequence[_Question],
    concurrency: int,
    tick: Tick,
    max_tokens: int,
    **settings: Any,
) -> Mapping[tuple[int, Lane], list[Answer]]:
    """Ask `concurrency` questions at a time, one lane and then the other, each first in turn."""
    answers: dict[tuple[int, Lane], list[Answer]] = defaultdict(list)
    lanes = (Lane.PLAIN, Lane.SPECULATIVE)

    async def one(question: _Question, lane: Lane) -> Answer:
        seed = {} if question.seeds is None else {"seed": question.seeds[lanes.index(lane)]}
        answer = await client.ask(question.prompt, lane, max_tokens, **settings, **seed)
        tick()
        return answer

    for turn, begin in enumerate(range(0, len(questions), concurrency)):
        block = questions[begin : begin + concurrency]
        for lane in lanes if turn % 2 == 0 else reversed(lanes):
            told = await asyncio.gather(*(one(question, lane) for question in block))
            for question, answer in zip(block, told, strict=True):
                answers[question.prompt.number, lane].append(answer)
    return answers
