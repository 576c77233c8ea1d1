from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

from rayspec.engine.autoscaling import AUTOSCALING_POLICY, stats
from rayspec.vllm_ext.stat_logger import EngineStats

KEY = next(iter(stats(EngineStats())))


def context(*engines: float, held_back: float = 0.0, target: float = 12.0) -> Any:
    reported = {KEY: dict(enumerate(engines))} if engines else {}
    return SimpleNamespace(
        aggregated_metrics=reported,
        total_queued_requests=held_back,
        config=AutoscalingConfig(target_ongoing_requests=target, max_replicas=9),
    )


def test_an_engine_reports_what_runs_and_waits() -> None:
    assert stats(EngineStats(running=3, waiting=4)) == {KEY: 7.0}


@pytest.mark.parametrize(
    ("engines", "held_back", "desired"),
    [((), 0, 0), ((6,), 0, 0.5), ((12,), 0, 1), ((16, 8), 0, 2), ((16,), 20, 3), ((), 12, 1)],
)
def test_engines_follow_the_sequences(
    engines: tuple[float, ...], held_back: float, desired: float
) -> None:
    # As Serve runs it: from the name, through the pickle that reaches the controller.
    policy = AutoscalingPolicy(policy_function=AUTOSCALING_POLICY).get_policy()
    assert policy(context(*engines, held_back=held_back)) == (desired, {})
