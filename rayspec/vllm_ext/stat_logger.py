"""The newest figures of vLLM's scheduler, for a replica. Read at vLLM 0.32.0.

The only user of vLLM's stat logger interface, which vLLM does not consider stable.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vllm.v1.metrics.loggers import StatLoggerBase

__all__ = ["EngineStats", "LatestStats"]


@dataclass(frozen=True, slots=True)
class EngineStats:
    """One engine's load; the counters grow from the start of the engine.

    `drafted` counts what the scheduler verified, fillers included: for the real acceptance use
    the worker's `rayspec_status()`.
    """

    at: float = 0.0
    running: int = 0
    waiting: int = 0
    kv_usage: float = 0.0
    steps: int = 0
    preemptions: int = 0
    drafts: int = 0
    drafted: int = 0
    accepted: int = 0
    generation_tokens: int = 0
    prompt_tokens: int = 0


class LatestStats:
    """Holds the newest `EngineStats`; pass `factory` as one of AsyncLLM's `stat_loggers`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._latest = EngineStats()

    @property
    def latest(self) -> EngineStats:
        """The figures of the newest scheduler step."""
        return self._latest

    def factory(self, vllm_config: Any, engine_index: int = 0) -> StatLoggerBase:
        """Build the logger that vLLM calls after every step."""
        return _Recorder(self)

    def record(self, scheduler: Any | None, iteration: Any | None) -> None:
        """Fold in vLLM's `SchedulerStats` and `IterationStats`, either of which may be missing."""
        old = self._latest
        spec = getattr(scheduler, "spec_decoding_stats", None)
        waiting = old.waiting
        if scheduler is not None:
            waiting = scheduler.num_waiting_reqs + scheduler.num_skipped_waiting_reqs
        self._latest = EngineStats(
            at=self._clock(),
            running=old.running if scheduler is None else scheduler.num_running_reqs,
            waiting=waiting,
            kv_usage=old.kv_usage if scheduler is None else scheduler.kv_cache_usage,
            steps=old.steps + (scheduler is not None),
            preemptions=old.preemptions + (iteration.num_preempted_reqs if iteration else 0),
            drafts=old.drafts + (spec.num_drafts if spec else 0),
            drafted=old.drafted + (spec.num_draft_tokens if spec else 0),
            accepted=old.accepted + (spec.num_accepted_tokens if spec else 0),
            generation_tokens=old.generation_tokens
            + (iteration.num_generation_tokens if iteration else 0),
            prompt_tokens=old.prompt_tokens + (iteration.num_prompt_tokens if iteration else 0),
        )


class _Recorder(StatLoggerBase):
    def __init__(self, stats: LatestStats) -> None:
        self._stats = stats

    def record(
        self,
        scheduler_stats: Any | None,
        iteration_stats: Any | None,
        mm_cache_stats: Any | None = None,
        engine_idx: int = 0,
    ) -> None:
        self._stats.record(scheduler_stats, iteration_stats)

    def log_engine_initialized(self) -> None:
        """Nothing to do: the first step brings the first figures."""
