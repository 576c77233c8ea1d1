"""From what an engine did step by step to one figure per quantity: the steady part of a batch."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Sample", "Step", "summarise"]

# Steps after the last prefill that are left out: the first ones still overlap with it.
SETTLE = 4


@dataclass(frozen=True)
class Step:
    """One step of an engine: requests that decoded or prefilled, their tokens, and its time."""

    decoding: int
    prefilling: int
    tokens: int
    seconds: float


@dataclass(frozen=True)
class Sample:
    """One batch through one engine, in the part where all its requests decode.

    `step_ms` is the mean time of a step, `tokens_per_step` of one request, `ms_per_token` of one
    request; `tpot_ms` is the median over the requests from first to last token, the steps that the
    former leave out among them.
    """

    steps: int
    step_ms: float
    step_p50_ms: float
    tokens_per_step: float
    ms_per_token: float
    tpot_ms: float
    rows: int  # requests times steps, over the whole batch


def summarise(steps: Sequence[Step], batch: int, tpots: Sequence[float]) -> Sample:
    """Reduce the steps of one batch; raises ValueError when it was never together for long."""
    steady = [i for i, step in enumerate(steps) if step.decoding == batch and not step.prefilling]
    window = [steps[i] for i in steady[SETTLE:-1]]  # the last one may end within a step
    if not window:
        raise ValueError(f"{batch} requests decoded together in {len(steady)} steps only")
    seconds = sum(step.seconds for step in window)
    tokens_per_step = sum(step.tokens for step in window) / (batch * len(window))
    return Sample(
        steps=len(window),
        step_ms=1e3 * seconds / len(window),
        step_p50_ms=1e3 * statistics.median(step.seconds for step in window),
        tokens_per_step=tokens_per_step,
        ms_per_token=1e3 * seconds / len(window) / tokens_per_step,
        tpot_ms=1e3 * statistics.median(tpots),
        rows=sum(step.decoding for step in steps),
    )
