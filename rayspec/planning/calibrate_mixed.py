"""Measures steps that hold a prompt beside decoding streams, and what the prompt waits for them."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Sequence
from itertools import pairwise
from statistics import fmean, median
from typing import Any, Final

from rayspec.planning.calibrate_client import Chunk, Reply

__all__ = ["Ask", "measure_mixed"]

Ask = Callable[[int, int, Reply], Awaitable[Reply]]
"""Asks for so many tokens after a prompt of such a length, into a reply that grows."""

# Chunks of every stream before a prompt comes, and after its first token.
_QUIET: Final = 6
# An engine hands out a first token once it has drafted what may follow, if anything may.
_TOKENS: Final = 4
# Multiples of the golden ratio are spread evenly over a step, however many there are.
_GOLDEN: Final = 0.618034
_POLL_S: Final = 0.005
_PATIENCE_S: Final = 120.0


async def measure_mixed(
    ask: Ask, batch: int, context: int, lengths: Sequence[int], tokens: int
) -> dict[str, Any]:
    """Return a list `mixed` of (prompt tokens, its step, a decoding step, time to first token).

    `batch` streams of `tokens` tokens decode after prompts of `context`; prompts of `lengths` come
    one after another beside them, at all moments of a step, as those of users do. All times are
    seconds. Streams that end too early leave out what was not measured.
    """
    replies = [Reply() for _ in range(batch)]
    streams = [reply.chunks for reply in replies]
    answers = [asyncio.ensure_future(ask(context, tokens, reply)) for reply in replies]
    prompts: list[Reply] = []
    try:
        async with asyncio.timeout(_PATIENCE_S):
            for number, length in enumerate(lengths):
                if not await _grow(streams, answers):
                    break
                await asyncio.sleep(number * _GOLDEN % 1 * _step_s(streams[0]))
                prompts.append(await ask(length, _TOKENS, Reply()))
            await _grow(streams, answers)
    except TimeoutError:
        pass
    finally:
        for answer in answers:
            answer.cancel()
        await asyncio.gather(*answers, return_exceptions=True)
    times = [[chunk.at for chunk in chunks] for chunks in streams]
    spans = [(prompt.sent, prompt.chunks[0].at) for prompt in prompts]
    decoding = [
        later - earlier
        for each in times
        for earlier, later in pairwise(each)
        if not any(earlier < end and later > begin for begin, end in spans)
    ]
    if not decoding or not prompts:
        return {"failed": f"{batch} streams never decoded beside a prompt"}
    step_s = fmean(decoding)
    return {
        "mixed": [
            (length, median(_longest(each, begin, end) for each in times), step_s, end - begin)
            for length, (begin, end) in zip(lengths, spans, strict=False)
        ]
    }


async def _grow(streams: Sequence[Sequence[Chunk]], answers: Sequence[asyncio.Future[Any]]) -> bool:
    """Wait until every stream has some more chunks; False if one has ended."""
    marks = [len(chunks) + _QUIET for chunks in streams]
    while any(len(c) < mark for c, mark in zip(streams, marks, strict=True)):
        if any(answer.done() for answer in answers):
            for answer in answers:
                if answer.done():
                    answer.result()  # raises what went wrong
            return False
        await asyncio.sleep(_POLL_S)
    return True


def _step_s(chunks: Sequence[Chunk]) -> float:
    """Return what a step of the stream took just now."""
    return median(later.at - earlier.at for earlier, later in pairwise(chunks[-_QUIET:]))


def _longest(times: Sequence[float], begin: float, end: float) -> float:
    """Return the longest time between two chunks of which the later came between the two times.

    What has the prompt's first token has theirs, too, a little sooner or later.
    """
    first = max(bisect_right(times, begin), 1)
    last = min(bisect_right(times, end) + 1, len(times))
    return max((times[i] - times[i - 1] for i in range(first, last)), default=0.0)
