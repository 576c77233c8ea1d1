from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from vllm.v1.engine import FinishReason
from vllm.v1.metrics.stats import FinishedRequestStats, IterationStats, SchedulerStats
from vllm.v1.spec_decode.metrics import SpecDecodingStats

from rayspec.vllm_ext.stat_logger import EngineStats, LatestStats
from tests.support.clock import Clock


def test_gauges_follow_and_counters_grow() -> None:
    clock = Clock(5.0)
    stats = LatestStats(clock)
    assert stats.latest == EngineStats()
    logger = stats.factory(None)
    spec = SpecDecodingStats.new(4)
    spec.observe_draft(4, 1)
    for running in (3, 2):
        iteration = IterationStats()
        iteration.num_generation_tokens = 5
        iteration.prompt_token_stats.total = 7
        iteration.num_preempted_reqs = 1
        scheduler = SchedulerStats(
            num_running_reqs=running,
            num_waiting_reqs=1,
            num_skipped_waiting_reqs=1,
            kv_cache_usage=0.5,
            spec_decoding_stats=spec,
        )
        logger.record(scheduler, iteration)
        clock.advance(1.0)
    assert stats.latest == EngineStats(
        at=6.0,
        running=2,
        waiting=2,
        kv_usage=0.5,
        steps=2,
        preemptions=2,
        drafts=2,
        drafted=8,
        accepted=2,
        generation_tokens=10,
        prompt_tokens=14,
        drafted_per_pos=(2, 2, 2, 2),
        accepted_per_pos=(2, 0, 0, 0),
    )


def test_parts_may_be_missing() -> None:
    stats = LatestStats(Clock())
    logger = stats.factory(None)
    logger.record(SchedulerStats(num_running_reqs=4), None)
    logger.record(None, None)
    assert stats.latest.running == 4
    assert stats.latest.steps == 1


CONFIG: Any = SimpleNamespace(
    scheduler_config=SimpleNamespace(max_num_seqs=16, max_num_batched_tokens=512),
    cache_config=SimpleNamespace(num_gpu_blocks=100, block_size=16),
    model_config=SimpleNamespace(get_num_experts=lambda: 0),
)


class Steps:
    """Plays scheduler steps as vLLM 0.32 reports them."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.stats = LatestStats(self.clock)
        self._logger = self.stats.factory(CONFIG)

    def step(
        self,
        *gaps: float,
        running: int,
        waiting: int = 0,
        first: tuple[float, ...] = (),
        computed: int = 0,
        drafted: int = 0,
        finished: int = 0,
        usage: float = 0.25,
    ) -> None:
        iteration = IterationStats()
        iteration.inter_token_latencies_iter = list(gaps)
        iteration.time_to_first_tokens_iter = list(first)
        iteration.prompt_token_stats.computed = computed
        iteration.finished_requests = [FinishedRequestStats(FinishReason.STOP)] * finished
        spec = SpecDecodingStats.new(4)
        spec.num_draft_tokens = drafted
        self._logger.record(
            SchedulerStats(
                num_running_reqs=running,
                num_waiting_reqs=waiting,
                kv_cache_usage=usage,
                spec_decoding_stats=spec if drafted else None,
            ),
            iteration,
        )
        self.clock.advance(0.1)

    def points(self) -> list[tuple[int, int, int, float]]:
        self.clock.advance(1.0)
        return [(p.batch, p.k, p.context, round(p.seconds, 6)) for p in self.stats.profile.steps]


def test_steps_in_which_all_decode_are_learnt_with_their_drafts() -> None:
    steps = Steps()
    for _ in range(10):
        steps.step(0.02, 0.02, running=2)
        steps.step(0.03, 0.03, running=2, drafted=8)
        steps.step(0.02, 0.02, running=1, finished=1)

    # A quarter of 1600 tokens of KV cache, over the sequences that run.
    assert steps.points() == [(2, 0, 300, 0.02), (2, 4, 200, 0.03)]


def test_the_step_s_own_time_is_that_of_who_was_in_the_one_before() -> None:
    steps = Steps()
    for _ in range(10):
        steps.step(0.02, 7.0, running=2)  # the second one was preempted for a while

    assert steps.points() == [(2, 0, 200, 0.02)]


def test_pauses_between_requests_are_no_steps() -> None:
    steps = Steps()
    for _ in range(10):
        steps.clock.advance(3600.0)
        steps.step(first=(0.05,), computed=30, running=1)
        steps.step(0.02, running=0, finished=1)

    assert [point[3] for point in steps.points()] == [0.02]


def test_steps_in_which_a_prompt_is_computed_are_not_decode_steps() -> None:
    steps = Steps()
    for _ in range(10):
        steps.step(0.5, running=2)  # a chunk of the second one's prompt
        steps.step(0.4, running=2, first=(1.0,), computed=300)

    assert steps.points() == []


def test_prompt_tokens_have_a_price() -> None:
    steps = Steps()
    for computed in (50, 100, 200, 400):
        steps.step(0.01 + 0.001 * computed, running=2, first=(9.0,), computed=computed)
    steps.step(5.0, running=2, first=(9.0,), computed=600)  # more than one step's worth

    steps.clock.advance(1.0)
    fit = steps.stats.profile.prefill
    assert fit is not None
    assert fit.base_s == pytest.approx(0.01)
    assert fit.per_token_s == pytest.approx(0.001)


def test_who_comes_to_an_idle_engine_waits_for_its_own_prompt_only() -> None:
    steps = Steps()
    for computed in (100, 400, 1024):
        chunks = -(-computed // 512)
        steps.step(running=1, first=(0.01 * chunks + 0.001 * computed,), computed=computed)
        steps.step(0.01, running=0, finished=1)
    steps.step(running=1, waiting=1, first=(0.2,), computed=190)
    steps.step(running=2, first=(77.0,), computed=10)  # it waited for another one

    steps.clock.advance(1.0)
    fit = steps.stats.profile.prefill
    assert fit is not None
    assert fit.per_token_s == pytest.approx(0.001)


def test_a_profile_tells_limits_and_is_made_anew_twice_a_second() -> None:
    steps = Steps()
    steps.clock.advance(1.0)
    first = steps.stats.profile
    assert (first.max_num_seqs, first.chunk_tokens, first.experts) == (16, 512, 0)

    for _ in range(3):
        steps.step(0.02, running=1)
    assert steps.stats.profile is first
    steps.clock.advance(0.5)
    assert steps.stats.profile is not first
