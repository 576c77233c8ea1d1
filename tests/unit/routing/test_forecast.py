from __future__ import annotations

from dataclasses import replace
from math import isfinite

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayspec.routing.cost_model import LaneCost, PrefillTimes, StepPoint, StepTimes
from rayspec.routing.curves import LaneCurve
from rayspec.routing.forecast import DEFAULT_ACCEPTANCE, believed_acceptance
from rayspec.routing.traffic import Lengths
from rayspec.routing.types import AcceptanceEstimate, Lane, LaneView, PositionEstimate
from tests.support.one_draft import BOTH, forecast
from tests.support.properties import quick

S, P = Lane.SPECULATIVE, Lane.PLAIN
LENGTHS = Lengths(100, 101)
TIERS = (0, 2, 4)


def curve(*, growth: float = 0.05, draft: float = 0.1, slow: float = 1.0) -> LaneCurve:
    """Return a lane whose step takes 10 ms, `growth` of that more per sequence and draft."""
    steps = StepTimes(
        StepPoint(
            batch, k, 100, 0.01 * slow * (1 + draft * (k > 0)) * (1 + growth * batch * (k + 1))
        )
        for batch in (1, 8, 32)
        for k in TIERS
    )
    cost = LaneCost(steps, PrefillTimes(0.01, 0.0001), 64, 1024)
    return LaneCurve(cost, cost)


CURVES = {S: curve(), P: curve()}


def views(speculative: int = 0, plain: int = 0) -> dict[Lane, LaneView]:
    return {
        S: LaneView(S, in_flight=speculative, replicas=1, attached=True),
        P: LaneView(P, in_flight=plain, replicas=1, attached=False),
    }


def seconds(acceptance: float, loads: dict[Lane, LaneView]) -> dict[Lane, float]:
    found = forecast(loads, CURVES, LENGTHS, (acceptance,), tiers=TIERS)
    return {lane: prediction.total_s for lane, prediction in found.lanes.items()}


def seen(*means: float, trials: float = 1e6) -> AcceptanceEstimate:
    positions = tuple(PositionEstimate(mean, 0.0, 1.0, trials) for mean in means)
    return AcceptanceEstimate("chat", 0.5, 0.4, 0.6, 1000.0, positions)


@pytest.mark.parametrize(
    ("estimate", "prior", "believed", "assumed"),
    [
        (AcceptanceEstimate("chat"), (), [DEFAULT_ACCEPTANCE] * 3, True),
        (AcceptanceEstimate("chat"), (0.9, 0.5), [0.9, 0.5, 0.5], True),
        (seen(0.8, 0.4, 0.2), (), [0.8, 0.4, 0.2], False),
        (seen(0.8), (), [0.8, 0.8, 0.8], False),  # unseen positions follow the one before
        (seen(0.0, trials=16.0), (), [0.3, 0.3, 0.3], False),  # half and half
        (seen(0.0, trials=1.0), (), [DEFAULT_ACCEPTANCE * 16 / 17] * 3, True),
    ],
)
def test_what_is_believed_of_a_class(
    estimate: AcceptanceEstimate, prior: tuple[float, ...], believed: list[float], assumed: bool
) -> None:
    found, doubtful = believed_acceptance(estimate, prior, 3)

    assert found == pytest.approx(believed, abs=1e-4)
    assert doubtful is assumed


def test_one_draft_at_a_time_tells_little_of_a_second_one() -> None:
    """Prompt lookup: a fifth of the steps has drafts, of which nearly all are accepted."""
    first = PositionEstimate(0.18, 0.16, 0.2, 1000.0)
    rare = AcceptanceEstimate("chat", positions=(first,), coverage=0.2)

    found, _ = believed_acceptance(rare, (), 3)

    assert found == pytest.approx((0.187, DEFAULT_ACCEPTANCE, DEFAULT_ACCEPTANCE), abs=1e-3)
    always = replace(rare, coverage=1.0)
    assert believed_acceptance(always, (), 3)[0] == pytest.approx((0.187,) * 3, abs=1e-3)


def test_good_drafts_pay_while_the_engine_idles() -> None:
    alone = seconds(0.8, views())

    assert alone[S] < alone[P]


def test_each_lane_slows_down_with_its_own_load() -> None:
    base, busier = seconds(0.8, views(1, 1)), seconds(0.8, views(20, 1))

    assert busier[S] > base[S]
    assert busier[P] == base[P]


def test_a_prefill_backlog_counts() -> None:
    loads = views()
    base = seconds(0.8, loads)
    loads[S] = replace(loads[S], backlog=50_000)

    assert seconds(0.8, loads)[S] == pytest.approx(base[S] + 5, rel=0.2)


def test_replicas_share_load_and_backlog() -> None:
    one, two = views(3), views(7)
    two[S] = replace(two[S], replicas=2, backlog=2000)
    one[S] = replace(one[S], backlog=1000)

    assert seconds(0.8, one)[S] == pytest.approx(seconds(0.8, two)[S])


def test_without_acceptance_nothing_is_drafted() -> None:
    found = forecast(views(), CURVES, LENGTHS, (0.0,), tiers=TIERS)

    assert found.lanes[S].k == 0
    drafted = found.drafting[S].best
    assert drafted is not None
    assert drafted.k == 2
    assert drafted.total_s > found.lanes[S].total_s


def test_k_shrinks_when_verification_costs() -> None:
    ks = [
        forecast(views(load), CURVES, LENGTHS, (0.6,), tiers=TIERS).lanes[S].k
        for load in (0, 4, 16, 60)
    ]

    assert ks == sorted(ks, reverse=True)
    assert (ks[0], ks[-1]) == (4, 0)


def test_breakeven_grows_with_load_and_tells_who_wins() -> None:
    found = [
        forecast(views(load, load), CURVES, LENGTHS, (0.9,), tiers=(0, 4)).drafting[S].breakeven
        for load in (0, 4, 16)
    ]

    assert all(value is not None for value in found)
    assert found == sorted(found, key=lambda value: value or 0.0)
    for load, breakeven in zip((0, 4, 16), found, strict=True):
        assert breakeven is not None
        # Where none are better by little, drafts are made as configured.
        for acceptance in (breakeven - 0.08, breakeven + 0.02):
            asked = forecast(views(load), CURVES, LENGTHS, (acceptance,), tiers=(0, 4))
            assert (asked.lanes[S].k > 0) == (acceptance > breakeven)


def test_a_long_context_is_an_axis_of_its_own() -> None:
    points = [
        StepPoint(batch, k, context, 0.01 * (1 + k) + batch * context * 1e-6)
        for batch in (1, 8)
        for k in (0, 4)
        for context in (100, 10_000)
    ]
    cost = LaneCost(StepTimes(points), PrefillTimes(0.0, 1e-6))
    both = {lane: LaneCurve(cost, cost) for lane in BOTH}
    short, long = (
        forecast(views(), both, Lengths(prompt, 100), (0.5,), tiers=(0,)).lanes[P].tpot_s
        for prompt in (100, 20_000)
    )

    assert long - short == pytest.approx(19_900e-6, rel=0.05)


def test_contention_counts_only_while_the_other_lane_works() -> None:
    contended = {P: replace(CURVES[P], contended=curve(slow=2.0).alone)}
    idle = forecast(views(0, 1), contended, LENGTHS, (), tiers=())
    busy = forecast(views(1, 1), contended, LENGTHS, (), tiers=())

    assert busy.lanes[P].tpot_s == pytest.approx(2 * idle.lanes[P].tpot_s)


def test_a_lane_without_curve_has_no_forecast() -> None:
    found = forecast(views(), {P: CURVES[P]}, LENGTHS, (0.5,), tiers=TIERS)

    assert set(found.lanes) == {P}
    assert found.drafting == {}


@quick
@given(
    st.integers(0, 10**4),
    st.floats(0, 1e7),
    st.floats(0, 1e6),
    st.integers(0, 5),
    st.lists(st.floats(0, 1), max_size=4),
    st.floats(0, 1),
    st.integers(1, 200),
    st.floats(0, 2),
)
def test_finite_on_any_load(
    load: int,
    backlog: float,
    context: float,
    replicas: int,
    acceptance: list[float],
    coverage: float,
    sequences: int,
    growth: float,
) -> None:
    loads = {
        lane: replace(view, backlog=backlog, context=context, replicas=replicas)
        for lane, view in views(load, load).items()
    }
    found = forecast(
        loads,
        {S: curve(growth=growth), P: curve()},
        LENGTHS,
        tuple(acceptance),
        tiers=TIERS,
        coverage=coverage,
        sequences=sequences,
    )

    for prediction in (*found.lanes.values(), found.drafting[S].best):
        assert prediction is not None
        assert isfinite(prediction.total_s)
        assert prediction.total_s > 0
    breakeven = found.drafting[S].breakeven
    assert breakeven is None or 0 <= breakeven <= 1


@quick
@given(st.integers(0, 100), st.integers(0, 100), st.floats(0, 1))
def test_more_load_in_a_lane_never_makes_it_faster(load: int, more: int, acceptance: float) -> None:
    before, after = (seconds(acceptance, views(n, n)) for n in (load, load + more))

    assert all(after[lane] >= before[lane] * (1 - 1e-9) for lane in BOTH)


def test_others_are_delayed_by_longer_steps_as_long_as_the_request_runs() -> None:
    found = forecast(views(0, 4), CURVES, LENGTHS, (0.0,), tiers=(0,))
    # Nobody is there to be delayed, and the lanes share no machine.
    assert found.burden_s[S] == 0.0
    steps = CURVES[P].alone.steps
    longer = steps.seconds(5, 0, 150.0) - steps.seconds(4, 0, 150.0)
    assert found.burden_s[P] == pytest.approx(4 * LENGTHS.output * longer, rel=0.05)
    assert found.cost_s[P] == found.lanes[P].total_s + found.burden_s[P]


def test_starting_an_idle_lane_delays_the_other_on_the_same_machine() -> None:
    slowed = {lane: replace(each, contended=curve(slow=1.5).alone) for lane, each in CURVES.items()}
    found = forecast(views(0, 4), slowed, LENGTHS, (0.0,), tiers=(0,))
    # Four sequences advance at two thirds of their pace while the request runs.
    assert found.burden_s[S] == pytest.approx(4 * found.lanes[S].total_s / 3, rel=0.05)
    both = forecast(views(1, 4), slowed, LENGTHS, (0.0,), tiers=(0,))
    assert both.burden_s[S] < found.burden_s[S] / 4  # it works anyway


def test_a_full_engine_delays_those_who_wait_by_no_longer_steps() -> None:
    found = forecast(views(0, 200), CURVES, LENGTHS, (0.0,), tiers=(0,))
    assert found.burden_s[P] == 0.0
