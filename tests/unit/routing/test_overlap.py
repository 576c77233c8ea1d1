from __future__ import annotations

from typing import Any

import pytest

from rayspec.routing.cost_model import StepPoint
from rayspec.routing.learner import StepLearner
from rayspec.routing.overlap import Overlap, Split, contention
from rayspec.routing.types import EngineProfile, EngineSnapshot, Lane
from tests.support.clock import Clock

S, P = Lane.SPECULATIVE, Lane.PLAIN


class Machine:
    """A plain engine whose steps are reported after every second of work."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.overlap = Overlap(self.clock)
        self.learner = StepLearner(self.clock)

    def report(self) -> None:
        profile = EngineProfile(self.learner.points(), sums=self.learner.sums())
        self.overlap.observe(
            EngineSnapshot(P, "a", self.clock(), 1, 0, 0.1, attached=False, profile=profile)
        )

    def work(self, *lanes: Lane, batch: int = 1, step_s: float = 0.1, seconds: int = 1) -> None:
        for _ in range(seconds):
            self.overlap.note(lanes)
            for _ in range(10):
                self.clock.advance(0.1)
                if P in lanes:
                    self.learner.decoded(batch, 0, 100, step_s)
            self.overlap.note(lanes)
            self.report()


def only(points: tuple[StepPoint, ...]) -> tuple[int, Any]:
    (point,) = points
    return point.batch, point.seconds


def test_steps_alone_and_beside_the_other_lane_are_told_apart() -> None:
    machine = Machine()
    machine.report()
    machine.work(P, batch=2, step_s=0.1, seconds=3)
    machine.work(S)
    machine.work(P, S, batch=4, step_s=0.3, seconds=3)
    split = machine.overlap.split(P)

    assert only(split.alone) == (2, pytest.approx(0.1))
    assert only(split.beside) == (4, pytest.approx(0.3))
    assert machine.overlap.split(S).alone == ()


def test_a_time_of_which_the_other_lane_worked_a_part_teaches_nothing() -> None:
    machine = Machine()
    machine.work(P)
    machine.overlap.note([P, S])
    machine.clock.advance(0.5)
    machine.overlap.note([P])
    machine.clock.advance(0.5)
    for _ in range(20):
        machine.learner.decoded(1, 0, 100, 0.2)
    machine.overlap.note([P])
    machine.report()

    split = machine.overlap.split(P)
    assert (split.alone, split.beside) == ((), ())
    assert 0 < split.share < 0.02


def test_what_an_engine_did_before_it_was_met_teaches_nothing() -> None:
    machine = Machine()
    machine.learner.decoded(1, 0, 100, 9.0)
    machine.report()
    machine.work(P, seconds=2)

    assert only(machine.overlap.split(P).alone) == (1, pytest.approx(0.1))


def test_an_engine_that_was_restarted_starts_anew() -> None:
    machine = Machine()
    machine.work(P, seconds=3)
    machine.learner = StepLearner(machine.clock)
    machine.work(P, seconds=3)

    assert only(machine.overlap.split(P).alone) == (1, pytest.approx(0.1))


def test_the_share_follows_what_is_seen() -> None:
    machine = Machine()
    assert machine.overlap.split(P).share == 0.0
    machine.work(P, S, seconds=5)
    assert machine.overlap.split(P).share == 1.0
    machine.work(P, seconds=60)
    assert machine.overlap.split(P).share == pytest.approx(0.5)


def points(*batches: int, scale: float = 1.0, k: int = 0) -> tuple[StepPoint, ...]:
    return tuple(StepPoint(b, k, 100, scale * (1 + b)) for b in batches)


@pytest.mark.parametrize(
    ("alone", "beside", "expected"),
    [
        ((), (), 1.5),  # nothing known
        (points(1, 8), points(2, 4, scale=1.2), 1.2),  # between loads that were met alone
        (points(1, 2), points(16, scale=1.2), 1.5),  # a load that was not met alone
        (points(1, 8), points(4, scale=1.2, k=2), 1.5),  # nor with drafts
        (points(1, 8), points(4, scale=0.5), 1.0),  # nobody is quicker in company
        (points(1, 8), points(4, scale=50.0), 4.0),
    ],
)
def test_contention_is_learnt_from_loads_that_were_met_in_both_cases(
    alone: tuple[StepPoint, ...], beside: tuple[StepPoint, ...], expected: float
) -> None:
    found = contention(Split(alone, beside), 1.5, 0.01)

    assert found == pytest.approx(expected, abs=0.02)
    if expected == 1.2:
        assert contention(Split(alone, beside), 1.5, 2.0) == pytest.approx(1.35)
