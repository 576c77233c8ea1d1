"""Measures one cell of a calibration on the running application."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from rayspec.errors import Overloaded, RequestError, Unavailable
from rayspec.planning.calibrate_cells import (
    Cell,
    ClassCell,
    ContentionCell,
    MixedCell,
    PrefillCell,
    StepCell,
)
from rayspec.planning.calibrate_client import Client, Reply, sample_sum
from rayspec.planning.calibrate_mixed import measure_mixed
from rayspec.planning.calibrate_prompts import Prompt
from rayspec.planning.calibrate_subject import Subject
from rayspec.planning.calibrate_watch import Effort, Watch
from rayspec.planning.calibrate_window import common, steady_steps, step_window
from rayspec.routing.types import Lane

__all__ = ["Meter", "Result"]

Result = dict[str, Any]
"""What a cell gave, as JSON: see `Meter`."""

_TTFT: Final = "vllm:time_to_first_token_seconds"
_DRAFTED: Final = "vllm:spec_decode_num_draft_tokens_total"
# Streams that answer a class's prompts at a time: acceptance does not depend on it.
_ANSWERS_TOGETHER: Final = 4
# An engine notices that a client went away within a step.
_SETTLE_STEPS: Final = 2.0
_SETTLE_FAILED_S: Final = 0.5
_BOOKKEEPING_S: Final = 0.5
# An engine hands out a first token once it has drafted what may follow, if anything may.
_FIRST_TOKENS: Final = 4


class Meter:
    """Measures cells.

    Their results, by the kind of cell, are

    - `windows`: per lane what `Window` holds, and the mean `drafts` of a sequence and step,
    - `points`: prompt tokens, and the times to the first token that client and engine saw,
    - `mixed`: prompt tokens, the step that held them, one that held none, time to the first token,
    - `steps` (how many gave so many tokens) of `all_steps`, `drafted`, and the answers' lengths,
    - or `failed`: why there is nothing, and `full` if a lane does not take so many.
    """

    def __init__(self, client: Client, subject: Subject, effort: Effort) -> None:
        self._client = client
        self._subject = subject
        self._effort = effort
        self._warm: set[Lane] = set()

    async def measure(self, cell: Cell) -> Result:
        """Return what `cell` gives now; a request that is refused is a result."""
        try:
            match cell:
                case StepCell():
                    return await self._together(cell, {cell.lane: cell.k})
                case ContentionCell():
                    return await self._together(cell, {Lane.SPECULATIVE: cell.k, Lane.PLAIN: 0})
                case PrefillCell():
                    return await self._prefill(cell)
                case MixedCell():
                    return await self._mixed(cell)
                case ClassCell():
                    return await self._answers(cell)
        except RequestError as error:
            await asyncio.sleep(_SETTLE_FAILED_S)
            full = {"full": True} if isinstance(error, Overloaded) else {}
            return {"failed": str(error), **full}

    async def _together(
        self, cell: StepCell | ContentionCell, drafts: Mapping[Lane, int]
    ) -> Result:
        """Let `batch` streams of each lane decode until enough of their steps were seen."""
        replies = {lane: [Reply() for _ in range(cell.batch)] for lane in drafts}
        streams = [reply.chunks for group in replies.values() for reply in group]
        watch = Watch(streams, self._effort)
        before = await self._drafted(drafts)
        room = self._subject.max_len - cell.context - max(drafts.values()) - 1
        answers = [
            asyncio.create_task(
                self._client.stream(
                    self._decode(prompt, room),
                    lane=lane,
                    k=k if lane is Lane.SPECULATIVE else None,
                    into=reply,
                    on_chunk=watch.look,
                )
            )
            for lane, k in drafts.items()
            for prompt, reply in zip(
                self._subject.pool.repeat(cell.batch, cell.context), replies[lane], strict=True
            )
        ]
        await _until(watch.enough, answers)
        span = common(streams)
        windows = {
            lane: step_window([r.chunks for r in group], [cell.context] * cell.batch, within=span)
            for lane, group in replies.items()
        }
        found = {lane: window for lane, window in windows.items() if window is not None}
        await asyncio.sleep(_SETTLE_STEPS * max((w.seconds for w in found.values()), default=1.0))
        if len(found) < len(windows) or steady_steps(streams) < min(self._effort.steps, 4):
            return {"failed": f"{cell.batch} streams never decoded together", "full": True}
        drafted = await self._drafted(drafts) - before
        taken = sum(len(reply.chunks) - 1 for reply in replies.get(Lane.SPECULATIVE, ()))
        return {
            "windows": {str(lane): asdict(window) for lane, window in found.items()},
            "drafts": drafted / max(taken, 1),
        }

    async def _drafted(self, drafts: Mapping[Lane, int]) -> float:
        if not drafts.get(Lane.SPECULATIVE):
            return 0.0
        return sample_sum(await self._client.metrics(), _DRAFTED)

    async def _prefill(self, cell: PrefillCell) -> Result:
        """Ask for first tokens after prompts of several lengths, one at a time."""
        if cell.lane not in self._warm:
            await self._first_token(cell.lane, cell.lengths[0])
            self._warm.add(cell.lane)
        points = []
        before = await self._engine_ttft(cell.lane)
        for length in cell.lengths * self._effort.prefills:
            client_s = await self._first_token(cell.lane, length)
            after = await self._engine_ttft(cell.lane)
            if after[1] == before[1]:  # the answer was faster than the engine's bookkeeping
                await asyncio.sleep(_BOOKKEEPING_S)
                after = await self._engine_ttft(cell.lane)
            if after[1] != before[1] + 1:
                raise Unavailable(f"the {cell.lane} engine answered somebody else too")
            points.append((length, client_s, after[0] - before[0]))
            before = after
        return {"points": points}

    async def _engine_ttft(self, lane: Lane) -> tuple[float, float]:
        """Return the sum of all times to the first token that the engine saw, and their number."""
        scrape, labels = await self._client.metrics(), {"lane": str(lane)}
        return (
            sample_sum(scrape, f"{_TTFT}_sum", labels),
            sample_sum(scrape, f"{_TTFT}_count", labels),
        )

    async def _first_token(self, lane: Lane, length: int) -> float:
        (prompt,) = self._subject.pool.take(1, length)
        body = self._decode(prompt, _FIRST_TOKENS)
        return (await self._client.stream(body, lane=lane)).ttft_s

    async def _mixed(self, cell: MixedCell) -> Result:
        """Ask for one token after prompts of several lengths, beside streams that decode."""

        async def ask(length: int, tokens: int, into: Reply) -> Reply:
            (prompt,) = self._subject.pool.repeat(1, length)
            k = cell.k if cell.lane is Lane.SPECULATIVE else None
            body = self._decode(prompt, tokens)
            return await self._client.stream(body, lane=cell.lane, k=k, into=into)

        room = self._subject.max_len - cell.context - cell.k - 1
        result = await measure_mixed(ask, cell.batch, cell.context, cell.lengths, room)
        await asyncio.sleep(_SETTLE_FAILED_S)
        return result

    async def _answers(self, cell: ClassCell) -> Result:
        """Let the speculative lane answer every prompt of the class, with all drafts."""
        gate = asyncio.Semaphore(_ANSWERS_TOGETHER)

        async def answer(prompt: Prompt) -> Reply:
            limit = {"max_tokens": self._effort.answer_tokens}
            async with gate:
                # Left alone, the router may choose fewer drafts.
                return await self._client.stream(
                    limit | dict(prompt.body) | {"model": self._subject.model},
                    lane=Lane.SPECULATIVE,
                    k=self._subject.k_max,
                )

        asked = [p for p in self._subject.prompts if p.workload_class == cell.workload_class]
        replies = await asyncio.gather(*map(answer, asked))
        # The first token is the prefill's, and the last step may be cut by the answer's end.
        steps = Counter(chunk.tokens for reply in replies for chunk in reply.chunks[1:-1])
        return {
            "steps": {str(tokens): count for tokens, count in sorted(steps.items())},
            "all_steps": sum(len(reply.chunks) - 1 for reply in replies),
            "drafted": sum(reply.drafted for reply in replies),
            "prompt_tokens": [reply.prompt_tokens for reply in replies],
            "output_tokens": [reply.output_tokens for reply in replies],
        }

    def _decode(self, prompt: Sequence[int], tokens: int) -> dict[str, Any]:
        return {
            "model": self._subject.model,
            "prompt": prompt,
            "max_tokens": tokens,
            "ignore_eos": True,
            "temperature": 0,
        }


async def _until(enough: asyncio.Event, answers: Sequence[asyncio.Task[Reply]]) -> None:
    """Wait until enough was seen, all answers ended or one failed; leave no answer running."""
    waiter = asyncio.create_task(enough.wait())
    ended = asyncio.gather(*answers)
    try:
        both: set[asyncio.Future[Any]] = {waiter, ended}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            ended.result()
    finally:
        # Cancelling `ended` would not do: it is done when the first of its answers fails.
        for task in (waiter, *answers):
            task.cancel()
        await asyncio.gather(waiter, ended, *answers, return_exceptions=True)
