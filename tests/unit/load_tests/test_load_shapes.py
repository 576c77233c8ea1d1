"""The shapes of load, and how the chosen one steps through its plan."""

from __future__ import annotations

import math
from argparse import Namespace
from typing import Any

import pytest

from load_tests import load_shapes
from load_tests.load_shapes import ChosenShape, Step, plan


def options(**changed: Any) -> Namespace:
    usual = {
        "shape": "staircase",
        "steps": "1,2,4",
        "rates": "0.5,2",
        "step_seconds": 10.0,
        "warm_up": 0.0,
        "peak": 32,
        "num_users": 3,
        "run_time": None,
    }
    return Namespace(**(usual | changed))


def test_staircase() -> None:
    steps = [Step("1 user", 1, 10), Step("2 users", 2, 10), Step("4 users", 4, 10)]
    assert plan(options()) == steps
    warm = Step("warm-up", 2, 5, warm_up=True)
    assert plan(options(warm_up=5)) == [warm, *steps]


def test_spike_and_closed() -> None:
    assert [step.users for step in plan(options(shape="spike"))] == [3, 32, 3]
    assert plan(options(shape="closed")) == [Step("3 users", 3, math.inf)]
    assert plan(options(shape="closed", run_time=60)) == [Step("3 users", 3, 60)]
    assert plan(options(shape="closed", num_users=None))[0].users == 1


def test_soak_is_cut_into_windows() -> None:
    steps = plan(options(shape="soak", run_time=25))
    assert [(s.name, s.users, s.seconds) for s in steps] == [
        ("0 s", 3, 10),
        ("10 s", 3, 10),
        ("20 s", 3, 5),
    ]
    assert sum(step.seconds for step in plan(options(shape="soak", step_seconds=600.0))) == 86400


def test_open_loop_has_a_source_in_every_worker() -> None:
    steps = plan(options(shape="open"), workers=8)
    assert [(s.name, s.users, s.rate) for s in steps] == [("0.5/s", 8, 0.5), ("2/s", 8, 2)]
    assert plan(options(shape="open"))[0].users == 3


class FakeCollector:
    """Notes what begins."""

    patience_s = 20.0

    def __init__(self, workers: int = 0, **changed: Any) -> None:
        self.options = options(**changed)
        self.begun: list[str | None] = []
        self.waiting = True
        self._workers = workers

    def workers(self) -> int:
        return self._workers

    def busy(self) -> bool:
        return self.waiting

    def plan(self, steps: list[Step]) -> None:
        self.planned = steps

    def begin(self, _: int, step: Step | None) -> None:
        self.begun.append(step.name if step else None)


class Clock:
    now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(load_shapes, "time", clock)
    return clock


def ticks(shape: ChosenShape, clock: Clock, seconds: int) -> list[int | None]:
    """Tick once a second; the users of every one."""
    users: list[int | None] = []
    for _ in range(seconds):
        tick = shape.tick()
        users.append(None if tick is None else tick[0])
        clock.now += 1
    return users


def test_steps_follow_each_other_and_answers_are_waited_for(clock: Clock) -> None:
    shape, collector = ChosenShape(), FakeCollector(step_seconds=3.0)
    shape.collector = collector  # type: ignore[assignment]
    assert ticks(shape, clock, 12) == [1, 1, 1, 2, 2, 2, 4, 4, 4, 0, 0, 0]
    assert collector.begun == ["1 user", "2 users", "4 users", None]
    collector.waiting = False
    assert ticks(shape, clock, 1) == [None]
    # The next run begins anew.
    assert ticks(shape, clock, 1) == [1]
    shape.rewind()
    assert ticks(shape, clock, 1) == [1]


def test_workers_get_time_for_their_last_report(clock: Clock) -> None:
    shape, collector = ChosenShape(), FakeCollector(workers=2, steps="1", step_seconds=1.0)
    shape.collector = collector  # type: ignore[assignment]
    collector.waiting = False
    assert ticks(shape, clock, 6) == [1, 0, 0, 0, 0, None]


def test_a_user_that_never_ends_does_not_hold_the_run(clock: Clock) -> None:
    shape, collector = ChosenShape(), FakeCollector(steps="1", step_seconds=1.0)
    shape.collector = collector  # type: ignore[assignment]
    users = ticks(shape, clock, 40)
    assert users.index(None) == 28
