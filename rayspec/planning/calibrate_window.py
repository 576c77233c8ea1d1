"""The steady part of streams that decode together, and the time of a step in it. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median

from rayspec.planning.calibrate_client import Chunk

__all__ = ["Window", "common", "steady_steps", "step_window"]


@dataclass(frozen=True, slots=True)
class Window:
    """Steps of one lane while all of its streams decoded.

    `context` is the mean length of a sequence in the middle of the window, `tokens` the mean
    tokens of a sequence and step.
    """

    batch: int
    steps: int
    seconds: float
    context: float
    tokens: float


def common(streams: Sequence[Sequence[Chunk]]) -> tuple[float, float] | None:
    """Return from when to when all streams decoded; None if they never did."""
    if not all(streams):
        return None
    first = max(chunks[0].at for chunks in streams)
    last = min(chunks[-1].at for chunks in streams)
    return (first, last) if last > first else None


def steady_steps(streams: Sequence[Sequence[Chunk]]) -> int:
    """Return the steps that every stream has made since all of them decode."""
    span = common(streams)
    if span is None:
        return 0
    return min(sum(chunk.at > span[0] for chunk in chunks) for chunks in streams)


def step_window(
    streams: Sequence[Sequence[Chunk]],
    prompt_tokens: Sequence[int],
    *,
    within: tuple[float, float] | None = None,
) -> Window | None:
    """Return the mean step of the time in which all streams decoded; None if that was no step.

    A sequence gets one chunk from each step of its engine, so all of them have the same steps. One
    that was read late may have two in one chunk, hence the largest count is the number of steps.
    The mean of the whole time, and no robust mean of the times between chunks: steps with drafts
    and without take turns, and on a busy machine chunks come in bursts, whose short gaps would pass
    for steps. `within` narrows the time, for two lanes that must overlap.
    """
    span = within or common(streams)
    if span is None:
        return None
    gaps = [b.at - a.at for chunks in streams for a, b in pairwise(chunks)]
    if not gaps:
        return None
    # Chunks of one step come milliseconds apart.
    slack = median(gaps) / 4
    counts, spans, contexts, tokens = [], [], [], []
    for chunks, prompt in zip(streams, prompt_tokens, strict=True):
        times = [chunk.at for chunk in chunks]
        low = bisect_left(times, span[0] - slack)
        high = bisect_right(times, span[1] + slack) - 1
        if high <= low:
            return None
        counts.append(high - low)
        spans.append(times[high] - times[low])
        inside = sum(chunk.tokens for chunk in chunks[low + 1 : high + 1])
        before = sum(chunk.tokens for chunk in chunks[: low + 1])
        contexts.append(prompt + before + inside / 2)
        tokens.append(inside / (high - low))
    steps = max(counts)
    seconds = median(
        length / count for length, count in zip(spans, counts, strict=True) if count == steps
    )
    return Window(len(streams), steps, seconds, fmean(contexts), fmean(tokens))
