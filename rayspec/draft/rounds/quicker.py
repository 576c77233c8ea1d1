"""Finds the fastest of several ways to run a decoding step, by running them on the device."""

from __future__ import annotations

import logging
import statistics
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

import torch

from rayspec.draft.vllm_model.base import DecodePlan

__all__ = ["Candidate", "quickest"]

logger = logging.getLogger(__name__)

_WARM_UPS: Final = 2  # some libraries settle for an algorithm at their second call
_REPLAYS: Final = 9
# Medians of replays that are nearer than this are one speed: the first candidate keeps its place.
_MARGIN: Final = 0.02

Plan = TypeVar("Plan", bound=DecodePlan)
Candidate = Callable[[], Plan]


def quickest(candidates: Mapping[str, Candidate[Plan]], context: int) -> Plan:
    """Return the candidate whose step takes the least time with `context` tokens in every row.

    Steps are timed as they will run, as CUDA graphs on the current device. A candidate that cannot
    be made or run is left out with a warning; if none can, the last one's error is raised. KV of
    block 0 is overwritten.
    """
    times: dict[str, float] = {}
    best: Plan | None = None
    error: Exception | None = None
    for name, make in candidates.items():
        try:
            plan = make()
            times[name] = _step_us(plan, context)
        except Exception as failure:
            logger.warning("%s cannot run this step: %s", name, failure)
            error = failure
            continue
        others = [taken for other, taken in times.items() if other != name]
        if best is None or times[name] < min(others) * (1 - _MARGIN):
            best = plan
    if best is None:
        raise error if error is not None else ValueError("no candidates")
    said = ", ".join(f"{name} {taken:.0f} µs" for name, taken in times.items())
    logger.info("step of %d rows with %d tokens each: %s", best.rows, best.width, said)
    return best


def _step_us(plan: DecodePlan, context: int) -> float:
    """Return the median time of a step in µs; the plan is left as it was made."""
    held = [plan.positions.clone(), plan.seq_lens.clone()]
    plan.seq_lens.fill_(context)
    plan.positions.add_(context - plan.width)
    try:
        for _ in range(_WARM_UPS):
            plan.run()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            plan.run()
        times = []
        for _ in range(_REPLAYS):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            graph.replay()
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end) * 1e3)
        return float(statistics.median(times))
    finally:
        plan.positions.copy_(held[0])
        plan.seq_lens.copy_(held[1])
        torch.cuda.synchronize()
