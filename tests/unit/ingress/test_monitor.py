"""Engines are told of a new version of the draft, and that there is none any more."""

from __future__ import annotations

from typing import Any, cast

import pytest

from rayspec.ingress.lanes import ServeDeployment
from rayspec.ingress.monitor import LaneMonitor
from rayspec.routing import EngineSnapshot, Lane, PolicySpec, Router
from rayspec.routing.trial import TrialSpec


class Engines:
    """Two engines, one of which started later and was told nothing yet."""

    def __init__(self, told: bool) -> None:
        self.attached: list[bool | None] = [True if told else None, None]
        self.calls: list[bool] = []

    async def broadcast(self, method: str, *args: Any, timeout_s: float) -> list[Any]:
        if method != "snapshot":
            assert method == "follow_candidate"
            since, wanted = args
            assert since > 0
            self.calls.append(wanted)
            self.attached = [True if wanted else None] * 2
            return []
        return [
            EngineSnapshot(Lane.SPECULATIVE, str(n), 1.0, 0, 0, 0.0, True, candidate=attached)
            for n, attached in enumerate(self.attached)
        ]


@pytest.mark.parametrize(
    ("trial", "told", "calls"),
    [
        (TrialSpec(), False, [True]),
        (TrialSpec(), True, [True]),
        (None, True, [False]),
        (None, False, []),
    ],
)
async def test_engines_are_told_once(
    trial: TrialSpec | None, told: bool, calls: list[bool]
) -> None:
    engines = Engines(told)
    lanes = {Lane.SPECULATIVE: cast(ServeDeployment, engines)}
    router = Router(PolicySpec(), tuple(lanes), lambda: 0.0, trial=trial)
    monitor = LaneMonitor(lanes, router, lambda views: None)
    for _ in range(3):
        await monitor.poll()
    assert engines.calls == calls
