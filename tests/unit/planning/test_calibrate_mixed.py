"""Steps that hold a prompt, seen from streams whose times are made up."""

from __future__ import annotations

import asyncio
import time

from rayspec.planning.calibrate_client import Chunk, Reply
from rayspec.planning.calibrate_mixed import measure_mixed

STEP_S, PROMPT_S = 0.01, 0.06


class Engine:
    """Steps in real time; one with a prompt takes longer."""

    def __init__(self, most: int = 10_000) -> None:
        self.streams: list[Reply] = []
        self.prompts: list[Reply] = []  # that wait for their step
        self.prompted: list[Reply] = []
        self.most = most

    async def run(self) -> None:
        while True:
            prompts, self.prompts = self.prompts, []
            await asyncio.sleep(STEP_S + PROMPT_S * len(prompts))
            now = time.perf_counter()
            for reply in [*self.streams, *self.prompted, *prompts]:
                reply.chunks.append(Chunk(now, 1))
            self.prompted += prompts

    async def ask(self, length: int, tokens: int, into: Reply) -> Reply:
        into.sent = time.perf_counter()
        (self.prompts if tokens < 9 else self.streams).append(into)
        while len(into.chunks) < min(tokens, self.most):
            await asyncio.sleep(0.001)
        return into


async def measured(engine: Engine, lengths: tuple[int, ...]) -> dict[str, list[tuple[float, ...]]]:
    steps = asyncio.create_task(engine.run())
    try:
        return await measure_mixed(engine.ask, 3, 128, lengths, 1000)
    finally:
        steps.cancel()


async def test_the_step_of_a_prompt_and_the_others() -> None:
    found = (await measured(Engine(), (128, 512)))["mixed"]

    assert [length for length, *_ in found] == [128, 512]
    for _, mixed_s, step_s, ttft_s in found:
        assert mixed_s >= PROMPT_S + STEP_S
        assert STEP_S <= step_s < PROMPT_S  # a busy machine adds to it
        assert ttft_s > PROMPT_S


async def test_streams_that_end_too_early_measure_nothing() -> None:
    found = await measured(Engine(most=3), (128,))

    assert "never decoded beside a prompt" in str(found["failed"])
