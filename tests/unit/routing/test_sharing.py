from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayspec.routing.cost_model import LaneCost, PrefillTimes, StepPoint, StepTimes
from rayspec.routing.curves import LaneCurve
from rayspec.routing.forecast import Drafts
from rayspec.routing.sharing import Gathering, Usual, drafting_together, gather
from rayspec.routing.traffic import Lengths
from rayspec.routing.types import Lane, LaneView
from tests.support.properties import quick

S, P = Lane.SPECULATIVE, Lane.PLAIN
USUAL = Usual(1.5, 2.0, Lengths(100, 50))


def usual(drafted: Usual = USUAL) -> dict[Lane, Usual]:
    return {S: drafted, P: Usual(1.0, 0.0, drafted.lengths)}


def curve(growth: float, contention: float = 1.0, draft: float = 0.1) -> LaneCurve:
    """Return a lane whose step of 10 ms grows by that per sequence and by `draft` per draft."""
    alone, contended = (
        LaneCost(
            StepTimes(
                StepPoint(b, k, 100, 0.01 * slow * (1 + growth * (b - 1)) * (1 + draft * k))
                for b in (1, 4, 16)
                for k in (0, 2, 4)
            ),
            PrefillTimes(0.001 * slow, 1e-6 * slow),
            16,
        )
        for slow in (1.0, contention)
    )
    return LaneCurve(alone, contended)


def views(speculative: int, plain: int) -> dict[Lane, LaneView]:
    return {
        S: LaneView(S, in_flight=speculative, replicas=1),
        P: LaneView(P, in_flight=plain, replicas=1),
    }


def found(
    growth: float,
    contention: float,
    loads: tuple[int, int] = (3, 0),
    before: Lane | None = None,
    *,
    gathered: bool = False,
) -> Gathering:
    curves = {S: curve(growth, contention), P: curve(growth, contention)}
    known = Gathering(before, 0.0, 0.0, frozenset({S, P})) if gathered else None
    return gather(views(*loads), curves, usual(), 1, known)


def test_what_generates_nothing_finds_an_idle_application() -> None:
    curves = {S: curve(0.0), P: curve(0.0)}
    assert gather(views(0, 0), curves, usual(), 0, None) == found(0.0, 1.0, (0, 0))


def test_one_request_takes_the_quicker_lane() -> None:
    assert found(0.0, 1.0, (0, 0)).lane is S
    slow = Usual(1.1, 4.0, USUAL.lengths)
    curves = {S: curve(0.0), P: curve(0.0)}
    assert gather(views(0, 0), curves, usual(slow), 1, None).lane is P


def test_lanes_that_hardly_slow_each_other_both_work() -> None:
    assert found(1.0, 1.1).lane is None


def test_lanes_that_slow_each_other_more_than_they_relieve_do_not_both_work() -> None:
    assert found(1.0, 3.0).lane is S
    assert found(0.01, 1.3).lane is S  # a step costs the same, however full


def test_what_was_best_stays_until_another_is_clearly_better() -> None:
    contention = 2.0
    free = found(0.5, contention)
    rates = (free.rate, free.otherwise)
    assert rates[0] > rates[1]
    kept = found(0.5, contention, before=P, gathered=True)
    assert kept.lane is (P if rates[0] <= rates[1] * 1.03 else free.lane)
    assert found(0.5, contention, before=free.lane, gathered=True).lane is free.lane


@quick
@given(st.floats(0, 1), st.floats(1, 3), st.integers(0, 40), st.integers(0, 40))
def test_the_best_for_all_is_never_much_worse_than_one_lane(
    growth: float, contention: float, speculative: int, plain: int
) -> None:
    for before, gathered in ((None, False), (S, True), (P, True), (None, True)):
        best = found(growth, contention, (speculative, plain), before, gathered=gathered)
        assert best.rate * 1.031 >= best.otherwise > 0 or speculative + plain == 0
        if contention == 1.0 and speculative + plain:
            assert best.lane is None or best.rate >= best.otherwise * 0.97


def test_the_usual_is_a_mean_of_late_requests() -> None:
    mean = USUAL.then(2.5, 4.0, Lengths(200, 150), 0.5)

    assert mean == Usual(2.0, 3.0, Lengths(150, 100))


def test_drafts_are_chosen_for_the_batch_that_all_make() -> None:
    cost = curve(1.0, draft=0.2).alone
    tokens, drafts = drafting_together(
        views(0, 0), S, cost, Drafts((0.8,), (0, 2, 4), 0.5), USUAL.lengths
    )
    assert drafts in (1.0, 2.0)
    assert tokens > 1
    none = drafting_together(views(3, 3), S, cost, Drafts((0.1,), (0, 2, 4)), USUAL.lengths)
    assert none == (1.0, 0.0)


def test_replicas_share_the_requests() -> None:
    curves = {S: curve(0.3, 2.0), P: curve(0.3, 2.0)}
    one = gather(views(3, 0), curves, usual(), 1, None)
    more = {lane: replace(view, replicas=4) for lane, view in views(15, 0).items()}
    assert gather(more, curves, usual(), 1, None).rate == pytest.approx(4 * one.rate)
