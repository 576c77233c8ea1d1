from __future__ import annotations

from vllm.v1.metrics.stats import IterationStats, SchedulerStats
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
    )


def test_parts_may_be_missing() -> None:
    stats = LatestStats(Clock())
    logger = stats.factory(None)
    logger.record(SchedulerStats(num_running_reqs=4), None)
    logger.record(None, None)
    assert stats.latest.running == 4
    assert stats.latest.steps == 1
