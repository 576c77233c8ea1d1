from __future__ import annotations

import pickle
from dataclasses import replace

import pytest

from rayspec.routing.cost_model import LaneCost, PrefillTimes, StepPoint, StepTimes
from rayspec.routing.curves import Curves, Measured, lane_curve
from rayspec.routing.overlap import Split
from rayspec.routing.types import EngineProfile, Lane
from tests.support.clock import Clock

S, P = Lane.SPECULATIVE, Lane.PLAIN
FIT = PrefillTimes(0.01, 0.001)
SLOWER = PrefillTimes(0.03, 0.003)


def points(scale: float, *batches: int) -> tuple[StepPoint, ...]:
    return tuple(StepPoint(batch, 0, 100, scale * batch) for batch in batches)


CALIBRATED = Measured(
    {P: LaneCost(StepTimes(points(1.0, 1, 4, 16)), FIT, 64, 512)}, {P: 1.5}, {P: 0.02}
)
ONLINE = EngineProfile(points(2.0, 4), SLOWER, 32, 256)


def test_nothing_is_known_before_anything_was_measured() -> None:
    assert lane_curve(P, [], None) is None
    assert lane_curve(P, [EngineProfile()], None) is None
    assert lane_curve(P, [replace(ONLINE, prefill=None)], None) is None
    assert lane_curve(S, [], CALIBRATED) is None


def test_engines_alone() -> None:
    curve = lane_curve(P, [ONLINE, replace(ONLINE, steps=points(4.0, 4), prefill=FIT)], None)

    assert curve is not None
    assert curve.alone is curve.contended
    assert curve.alone.steps.seconds(4, 0, 100) == pytest.approx(12.0)  # the mean of both
    assert curve.alone.prefill.base_s == pytest.approx(0.02)
    assert (curve.alone.max_num_seqs, curve.alone.chunk_tokens) == (32, 256)


def test_a_calibration_alone() -> None:
    curve = lane_curve(P, [EngineProfile()], CALIBRATED)

    assert curve is not None
    assert curve.overhead_s == 0.02
    assert curve.alone.steps.seconds(16, 0, 100) == pytest.approx(16.0)
    assert curve.contended.steps.seconds(16, 0, 100) == pytest.approx(24.0)
    assert curve.alone.prefill == FIT
    assert curve.contended.prefill.per_token_s == pytest.approx(0.0015)


def test_engines_correct_a_calibration_at_every_load() -> None:
    curve = lane_curve(P, [ONLINE], CALIBRATED)

    assert curve is not None
    assert curve.alone.steps.seconds(4, 0, 100) == pytest.approx(8.0)  # as measured
    assert curve.alone.steps.seconds(16, 0, 100) == pytest.approx(32.0)  # twice as slow, too
    assert curve.alone.prefill == SLOWER
    assert curve.alone.max_num_seqs == 64
    # The engine measured while the other lane rested.
    assert curve.contended.steps.seconds(4, 0, 100) == pytest.approx(12.0)


def test_a_wild_measurement_does_not_bend_the_whole_calibration() -> None:
    curve = lane_curve(P, [replace(ONLINE, steps=points(100.0, 4))], CALIBRATED)

    assert curve is not None
    assert curve.alone.steps.seconds(16, 0, 100) == pytest.approx(48.0)


def test_a_curve_is_built_once_and_outlives_its_replicas() -> None:
    curves = Curves(every_s=0)
    first = curves.update({P: (ONLINE,)})[P]

    assert curves.update({P: (pickle.loads(pickle.dumps(ONLINE)),)})[P] is first
    assert curves.update({P: ()})[P] is first
    assert curves.update({P: (replace(ONLINE, steps=points(3.0, 4)),)})[P] is not first
    assert S not in curves.update({P: (ONLINE,), S: ()})


def test_a_load_that_was_not_met_is_guessed_to_its_favour() -> None:
    busy = replace(ONLINE, steps=(StepPoint(16, 4, 100, 0.8),))
    curve = Curves(k_tiers={S: (0, 4)}).update(
        {S: (busy,), P: (replace(ONLINE, steps=points(0.05, 1)),)}
    )
    steps = curve[S].alone.steps

    assert steps.seconds(16, 4, 100) == pytest.approx(0.8)
    assert steps.seconds(16, 0, 100) == pytest.approx(0.16)  # a fifth of the tokens
    assert steps.seconds(1, 4, 100) == pytest.approx(0.05)  # no faster than any step was
    assert steps.seconds(1, 0, 100) == pytest.approx(0.05)
    assert curve[P].alone.steps.seconds(1, 0, 100) == pytest.approx(0.05)


def test_what_was_measured_is_not_guessed() -> None:
    steps = (*points(0.1, 1, 8), StepPoint(1, 4, 100, 0.3), StepPoint(8, 4, 100, 0.9))
    curve = lane_curve(S, [replace(ONLINE, steps=steps)], None, (0, 4), 0.1)

    assert curve is not None
    assert set(curve.alone.steps.points) == set(steps)


def test_a_calibration_travels_to_other_processes() -> None:
    copy = pickle.loads(pickle.dumps(CALIBRATED))

    assert copy.costs[P].steps.seconds(4, 0, 100) == pytest.approx(4.0)


def test_a_calibration_is_there_before_any_engine_reports() -> None:
    curves = Curves(CALIBRATED)
    first = curves.update({P: (), S: ()})

    assert set(first) == {P}
    assert curves.update({P: (), S: ()})[P] is first[P]
    assert P in curves.update({P: (ONLINE,), S: ()})


def test_what_was_measured_beside_the_other_lane_is_faster_alone() -> None:
    profile = replace(ONLINE, steps=points(1.0, 4))
    for share, alone in ((0.0, 1.0), (1.0, 1 / 1.5), (0.5, 1 / 1.25)):
        curve = lane_curve(P, [profile], None, split=Split(share=share))
        assert curve is not None
        assert curve.alone.steps.seconds(4, 0, 100) == pytest.approx(4 * alone)
        assert curve.contended.steps.seconds(4, 0, 100) == pytest.approx(4 * alone * 1.5)
        assert curve.contended.prefill.per_token_s == pytest.approx(
            1.5 * curve.alone.prefill.per_token_s
        )


def test_what_was_told_apart_is_taken_as_it_is() -> None:
    split = Split(points(1.0, 4), points(1.2, 2, 4), 0.5)
    for measured in (None, CALIBRATED):
        curve = lane_curve(P, [ONLINE], measured, split=split)
        assert curve is not None
        assert curve.alone.steps.seconds(4, 0, 100) == pytest.approx(4.0)
        assert curve.contended.steps.seconds(4, 0, 100) == pytest.approx(4.8)
        assert curve.contended.steps.seconds(2, 0, 100) == pytest.approx(2.4)


def test_what_cannot_be_told_apart_does_not_bend_a_calibration() -> None:
    curve = lane_curve(P, [ONLINE], CALIBRATED, split=Split())

    assert curve is not None
    assert curve.alone.steps.seconds(4, 0, 100) == pytest.approx(4.0)
    assert curve.contended.steps.seconds(4, 0, 100) == pytest.approx(6.0)
    assert curve.alone.prefill == FIT


def test_lanes_on_hardware_of_their_own_are_never_told_apart() -> None:
    def never(lane: Lane) -> Split:
        raise AssertionError(lane)

    assert Curves(None).update({P: (ONLINE,)}, never)[P].contended.steps is not None
    assert Curves(shared=True).update({P: (ONLINE,)})[P].contended is not None


def test_what_is_known_already_is_refined_now_and_then_and_a_new_load_at_once() -> None:
    clock = Clock()
    curves = Curves(clock=clock, every_s=0.25)
    first = curves.update({P: (ONLINE,)})[P]
    moved = replace(ONLINE, steps=points(3.0, *(point.batch for point in ONLINE.steps)))

    assert curves.update({P: (moved,)})[P] is first
    clock.advance(0.25)
    refined = curves.update({P: (moved,)})[P]
    assert refined is not first

    new = replace(moved, steps=(*moved.steps, StepPoint(64, 0, 100, 9.0)))
    assert curves.update({P: (new,)})[P] is not refined
