from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from rayspec.routing import Outcome, PolicySpec, RequestView, Router
from rayspec.routing.cost_model import LaneCost, PrefillTimes, StepPoint, StepTimes
from rayspec.routing.crossover import Crossover
from rayspec.routing.curves import LaneCurve
from rayspec.routing.traffic import Lengths
from rayspec.routing.types import EngineProfile, EngineSnapshot, Lane, LaneView
from tests.support.one_draft import crossover, forecast

S, P = Lane.SPECULATIVE, Lane.PLAIN
LENGTHS = Lengths(100, 50)
TIERS = (0, 4)


def curve(points: list[StepPoint], *, slower: float = 1.0) -> LaneCurve:
    cost = LaneCost(StepTimes(points), PrefillTimes(0.01, 0.0001), 32, 1024)
    times = StepTimes([replace(point, seconds=point.seconds * slower) for point in points])
    return LaneCurve(cost, replace(cost, steps=times))


# Verifying costs little for one sequence and much for many; without drafts the batch hardly counts.
# The speculative engine pays 5 % for being ready to verify.
DRAFTED = curve(
    [
        point
        for batch in (1, 32)
        for point in (
            StepPoint(batch, 0, 125, 0.0105 * (1 + batch / 100)),
            StepPoint(batch, 4, 125, 0.012 * (1 + batch / 8)),
        )
    ],
    slower=2,
)
PLAIN = curve([StepPoint(batch, 0, 125, 0.01 * (1 + batch / 100)) for batch in (1, 8)], slower=2)


def views(speculative: int = 0, plain: int = 0, replicas: int = 1) -> dict[Lane, LaneView]:
    return {
        S: LaneView(S, in_flight=speculative, replicas=replicas, attached=True),
        P: LaneView(P, in_flight=plain, replicas=replicas),
    }


def lines(loads: dict[Lane, LaneView], acceptance: float = 0.7) -> Crossover:
    curves = {S: DRAFTED, P: PLAIN}
    return crossover("chat", loads, curves, LENGTHS, (acceptance,), tiers=TIERS)


def test_drafts_pay_until_verification_is_too_wide() -> None:
    found = lines(views())
    (first, before), (after, lane) = found.sooner
    assert (first, before, lane) == (1, S, P)
    assert 4 < after < 32
    drafted, plain = found.lanes[S].points, found.lanes[P].points
    assert [point.concurrency for point in drafted] == [point.concurrency for point in plain]
    assert drafted[0].k == 4
    assert drafted[-1].k == 0
    assert (drafted[0].concurrency, drafted[-1].concurrency) == (1, 32)


def test_bad_drafts_never_pay() -> None:
    assert lines(views(), acceptance=0.01).sooner == ((1, P),)


def test_a_lane_that_is_as_good_as_equal_takes_nothing_over() -> None:
    almost = replace(PLAIN, alone=replace(PLAIN.alone, steps=DRAFTED.alone.steps))
    found = crossover("chat", views(), {S: DRAFTED, P: almost}, LENGTHS, (0.7,), tiers=TIERS)
    assert found.sooner == ((1, S),)


def test_points_are_what_the_forecast_says_at_that_load() -> None:
    """The line is that of the router, so the next request's forecast lies on it."""
    for running in (0, 1, 4, 15):
        loads = views(speculative=running)
        found = lines(loads)
        said = forecast(
            loads, {S: DRAFTED, P: PLAIN}, LENGTHS, (0.7,), tiers=TIERS, coverage=1.0
        ).lanes[S]
        on_line = [p for p in found.lanes[S].points if p.concurrency == running + 1]
        for point in on_line:
            assert point.k == said.k
            assert point.tpot_s == pytest.approx(said.tpot_s)
            assert point.total_s == pytest.approx(said.total_s)
        assert on_line or running == 15


def test_where_it_stands_is_per_engine_and_beside_what_works() -> None:
    found = lines(views(speculative=6, replicas=2))
    assert found.lanes[S].now == 3
    assert found.lanes[P].now == 0
    assert not found.lanes[S].beside
    assert found.lanes[P].beside
    alone = lines(views()).lanes[P].points
    assert found.lanes[P].points[0].tpot_s == pytest.approx(2 * alone[0].tpot_s)


def test_what_was_not_measured_is_marked() -> None:
    found = lines(views())
    assert found.lanes[S].measured_to == 32
    assert found.lanes[P].measured_to == 8


def test_unknown_lanes_are_left_out() -> None:
    found = crossover("chat", views(), {P: PLAIN}, LENGTHS, (0.7,), tiers=TIERS)
    assert set(found.lanes) == {P}
    assert found.sooner == ()
    assert crossover("chat", views(), {}, LENGTHS, (), tiers=()).lanes == {}


def test_loads_reach_what_is_in_the_lane_and_stay_few() -> None:
    points = lines(views(speculative=300)).lanes[S].points
    assert points[-1].concurrency == 301
    assert len(points) < 30
    assert all(a.concurrency < b.concurrency for a, b in pairwise(points))


def test_the_router_draws_a_class_as_it_knows_it() -> None:
    router = Router(PolicySpec(k_tiers=TIERS), (S, P), lambda: 0.0)
    assert router.crossover("chat").lanes == {}
    for lane, known in ((S, DRAFTED), (P, PLAIN)):
        profile = EngineProfile(known.alone.steps.points, known.alone.prefill, 32, 1024)
        router.observe(EngineSnapshot(lane, "1", 1.0, 0, 0, 0.0, lane is S, profile=profile))
    before = router.crossover("chat")
    assert before.assumed
    assert (before.lengths.prompt, before.lengths.output) == (256, 128)
    for _ in range(40):
        ticket = router.admit(RequestView("chat", body_bytes=400))
        router.finish(
            ticket,
            Outcome("chat", S, 10, 40, 36, 46, True, (0, 0, 0, 4, 6), k=4, body_bytes=400,
                    prompt_tokens=100),
        )  # fmt: skip
    after = router.crossover("chat")
    assert not after.assumed
    assert after.acceptance > 0.9
    assert 100 < after.lengths.prompt < 110
    assert 46 < after.lengths.output < 52
    assert after.lanes[S].points[0].tpot_s < before.lanes[S].points[0].tpot_s
