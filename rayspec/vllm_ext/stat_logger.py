"""The newest figures of vLLM's scheduler, and step times learnt from them. Read at vLLM 0.32.0.

The only user of vLLM's stat logger interface, which vLLM does not consider stable.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from vllm.v1.metrics.loggers import StatLoggerBase

from rayspec.routing.learner import StepLearner
from rayspec.routing.types import EngineProfile

__all__ = ["EngineStats", "LatestStats"]

# Snapshots are many, and what they say of step times changes slowly.
_PROFILE_S = 0.5


@dataclass(frozen=True, slots=True)
class EngineStats:
    """One engine's load; the counters grow from the start of the engine.

    `drafted` counts what the scheduler verified, fillers included: for the real acceptance use
    the worker's `rayspec_status()`. `context` is the mean length of a running sequence in tokens,
    as far as the use of the KV cache tells.
    `drafted_per_pos` and `accepted_per_pos` are by position in the draft, empty before any.
    """

    at: float = 0.0
    running: int = 0
    waiting: int = 0
    kv_usage: float = 0.0
    context: float = 0.0
    steps: int = 0
    preemptions: int = 0
    drafts: int = 0
    drafted: int = 0
    accepted: int = 0
    generation_tokens: int = 0
    prompt_tokens: int = 0
    drafted_per_pos: tuple[int, ...] = ()
    accepted_per_pos: tuple[int, ...] = ()


class LatestStats:
    """Holds the newest `EngineStats`; pass `factory` as one of AsyncLLM's `stat_loggers`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._latest = EngineStats()
        self._learner = StepLearner(clock)
        self._config: Any = None
        self._profile = EngineProfile()
        self._profile_at = float("-inf")

    @property
    def latest(self) -> EngineStats:
        """The figures of the newest scheduler step."""
        return self._latest

    @property
    def profile(self) -> EngineProfile:
        """What the engine's own steps have taught so far; up to half a second old."""
        now = self._clock()
        if self._config is not None and now - self._profile_at >= _PROFILE_S:
            scheduler = self._config.scheduler_config
            self._profile = EngineProfile(
                steps=self._learner.points(),
                prefill=self._learner.prefill(),
                max_num_seqs=scheduler.max_num_seqs,
                chunk_tokens=scheduler.max_num_batched_tokens,
                experts=self._config.model_config.get_num_experts(),
                sums=self._learner.sums(),
            )
            self._profile_at = now
        return self._profile

    def factory(self, vllm_config: Any, engine_index: int = 0) -> StatLoggerBase:
        """Build the logger that vLLM calls after every step."""
        self._config = vllm_config
        return _Recorder(self)

    def record(self, scheduler: Any | None, iteration: Any | None) -> None:
        """Fold in vLLM's `SchedulerStats` and `IterationStats`, either of which may be missing."""
        old = self._latest
        spec = getattr(scheduler, "spec_decoding_stats", None)
        running, waiting = old.running, old.waiting
        if scheduler is not None:
            running = scheduler.num_running_reqs
            waiting = scheduler.num_waiting_reqs + scheduler.num_skipped_waiting_reqs
        kv_usage = old.kv_usage if scheduler is None else scheduler.kv_cache_usage
        self._latest = EngineStats(
            at=self._clock(),
            running=running,
            waiting=waiting,
            kv_usage=kv_usage,
            context=kv_usage * self._kv_tokens() / running if running else 0.0,
            steps=old.steps + (scheduler is not None),
            preemptions=old.preemptions + (iteration.num_preempted_reqs if iteration else 0),
            drafts=old.drafts + (spec.num_drafts if spec else 0),
            drafted=old.drafted + (spec.num_draft_tokens if spec else 0),
            accepted=old.accepted + (spec.num_accepted_tokens if spec else 0),
            generation_tokens=old.generation_tokens
            + (iteration.num_generation_tokens if iteration else 0),
            prompt_tokens=old.prompt_tokens + (iteration.num_prompt_tokens if iteration else 0),
            drafted_per_pos=_added(old.drafted_per_pos, spec and spec.num_draft_tokens_per_pos),
            accepted_per_pos=_added(
                old.accepted_per_pos, spec and spec.num_accepted_tokens_per_pos
            ),
        )
        if scheduler is not None and iteration is not None:
            self._learn(old, iteration, spec.num_draft_tokens if spec else 0)

    def _learn(self, old: EngineStats, iteration: Any, drafted: int) -> None:
        """Learn the time of a step.

        A sequence's time since its last token is measured by the engine core, and is the time of
        this step if the sequence was in the one before; the smallest is of one that was. So neither
        a pause between requests nor a delay in this process can be taken for a step.
        """
        now = self._latest
        gaps = iteration.inter_token_latencies_iter
        first_tokens = iteration.time_to_first_tokens_iter
        batch = len(gaps)
        if first_tokens:
            tokens = iteration.prompt_token_stats.computed
            if batch and tokens <= self._chunk_tokens():
                self._learner.prefilled(tokens, min(gaps))
            elif not batch and len(first_tokens) == 1 and not old.running and not old.waiting:
                # The engine was idle, so the request's wait is its prefill, in equal chunks.
                chunks = -(-tokens // self._chunk_tokens())
                self._learner.prefilled(tokens / max(chunks, 1), first_tokens[0] / max(chunks, 1))
        elif batch and batch >= now.running + len(iteration.finished_requests):
            # Every sequence of the step decoded; otherwise some prompt had a chunk computed.
            context = now.context or old.context
            self._learner.decoded(batch, drafted / batch, context, min(gaps))

    def _chunk_tokens(self) -> int:
        return (
            2048 if self._config is None else self._config.scheduler_config.max_num_batched_tokens
        )

    def _kv_tokens(self) -> int:
        """Return how many tokens the KV cache holds; known once the engine has started."""
        if self._config is None:
            return 0
        cache = self._config.cache_config
        return (cache.num_gpu_blocks or 0) * (cache.block_size or 0)


def _added(before: tuple[int, ...], more: Sequence[int] | None) -> tuple[int, ...]:
    if not more:
        return before
    return tuple(map(sum, zip_longest(before, more, fillvalue=0)))


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
