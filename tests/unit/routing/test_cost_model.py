from __future__ import annotations

from math import isclose, isfinite

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayspec.routing.cost_model import (
    LaneCost,
    PrefillTimes,
    StepPoint,
    StepTimes,
    best_k,
    breakeven_acceptance,
    expected_tokens,
    predict,
)
from tests.support.properties import quick

PREFILL = PrefillTimes(0.01, 0.001)


def lane(*points: tuple[int, int, float], **limits: int) -> LaneCost:
    steps = StepTimes(StepPoint(batch, k, 100, seconds) for batch, k, seconds in points)
    return LaneCost(steps, PREFILL, **limits)


@pytest.mark.parametrize(
    ("acceptance", "k", "tokens"),
    [
        (0.8, 0, 1.0),
        (0.0, 5, 1.0),
        (1.0, 5, 6.0),
        (0.5, 2, 1.75),
        ((0.5, 0.25), 2, 1.625),
        ((0.5, 0.25), 3, 1.65625),  # the last position's holds on
        ((), 3, 1.0),
    ],
)
def test_tokens_of_a_step(acceptance: float | tuple[float, ...], k: int, tokens: float) -> None:
    assert expected_tokens(acceptance, k) == tokens


@quick
@given(st.floats(0, 0.999), st.integers(0, 16))
def test_tokens_of_a_step_follow_the_published_formula(acceptance: float, k: int) -> None:
    published = (1 - acceptance ** (k + 1)) / (1 - acceptance)

    assert isclose(expected_tokens(acceptance, k), published, rel_tol=1e-9)


@pytest.mark.parametrize(
    ("speculative_s", "plain_s", "k", "breakeven"),
    [
        (1.0, 1.0, 4, 0.0),
        (0.5, 1.0, 4, 0.0),
        (1.5, 1.0, 1, 0.5),
        (1.75, 1.0, 2, 0.5),
        (2.0, 1.0, 1, 1.0),
        (2.1, 1.0, 1, None),
        (2.0, 1.0, 0, None),
        (1.0, 0.0, 4, None),
    ],
)
def test_breakeven(speculative_s: float, plain_s: float, k: int, breakeven: float | None) -> None:
    found = breakeven_acceptance(speculative_s, plain_s, k)

    assert found == (None if breakeven is None else pytest.approx(breakeven, abs=1e-6))


@pytest.mark.parametrize(
    ("batch", "k", "seconds"),
    [
        (1, 0, 1.0),
        (0.5, 0, 1.0),  # below the smallest batch its time holds
        (4, 0, 2.5),  # between
        (7, 0, 4.0),
        (9, 0, 5.0),  # the last slope goes on
        (1, 4, 2.0),
        (1, 2, 1.5),  # between two Ks
        (1, 9, 2.0),  # the nearest K
    ],
)
def test_step_times_are_interpolated(batch: float, k: float, seconds: float) -> None:
    steps = lane((1, 0, 1.0), (7, 0, 4.0), (1, 4, 2.0)).steps

    assert steps.seconds(batch, k, 100) == pytest.approx(seconds)


def test_the_price_of_context_is_fitted_over_all_points() -> None:
    steps = StepTimes(
        [StepPoint(1, 0, 100, 1.0), StepPoint(1, 0, 1100, 1.5), StepPoint(4, 0, 100, 2.0)]
    )

    assert steps.seconds(1, 0, 2100) == pytest.approx(2.0)
    assert steps.seconds(4, 0, 1100) == pytest.approx(4.0)


def test_without_a_point_there_are_no_step_times() -> None:
    with pytest.raises(ValueError, match="at least one"):
        StepTimes([StepPoint(0, 0, 0, 1.0), StepPoint(1, 0, 0, 0.0)])


@pytest.mark.parametrize(
    ("acceptance", "k"), [(0.0, 0), (0.3, 0), (0.6, 2), (0.95, 4), ((0.9, 0.1), 2)]
)
def test_best_k(acceptance: float, k: int) -> None:
    cost = lane((1, 0, 1.0), (1, 2, 1.4), (1, 4, 1.8))

    assert best_k(cost, 1, acceptance, 100, (4, 0, 2)) == k


@pytest.mark.parametrize(("seconds", "k"), [(1.02, 4), (1.04, 0)])
def test_noise_of_step_times_leaves_the_drafts_as_they_are_configured(
    seconds: float, k: int
) -> None:
    assert best_k(lane((1, 0, 1.0), (1, 4, seconds)), 1, 0.0, 100, (0, 4)) == k


def test_a_draft_that_offers_little_costs_little() -> None:
    cost = lane((1, 0, 1.0), (1, 4, 2.0))

    assert best_k(cost, 1, 0.4, 100, (0, 4)) == 0
    assert best_k(cost, 1, 0.4, 100, (0, 4), coverage=0.5) == 4
    prediction = predict(
        cost,
        batch=1,
        k=4,
        acceptance=0.0,
        prompt_tokens=1,
        output_tokens=1,
        context=100,
        coverage=0.5,
    )
    assert prediction.tpot_s == pytest.approx(1.5)


def test_prefill_in_chunks() -> None:
    assert PREFILL.seconds(0, 100) == 0.0
    assert PREFILL.seconds(250, 100) == pytest.approx(3 * 0.01 + 0.25)


def test_a_request_alone() -> None:
    prediction = predict(
        lane((1, 4, 2.0)),
        batch=1,
        k=4,
        acceptance=1.0,
        prompt_tokens=100,
        output_tokens=11,
        context=100,
        backlog_tokens=50,
    )

    assert prediction.tpot_s == pytest.approx(0.4)
    assert prediction.ttft_s == pytest.approx(0.01 + 0.15 + 0.4)
    assert prediction.total_s == pytest.approx(prediction.ttft_s + 10 * 0.4)


def test_what_does_not_fit_waits() -> None:
    cost = lane((1, 0, 1.0), max_num_seqs=2)
    ask = {"k": 0, "acceptance": 0.0, "prompt_tokens": 1, "output_tokens": 10, "context": 1}
    alone, third = predict(cost, batch=2, **ask), predict(cost, batch=3, **ask)  # type: ignore[arg-type]

    assert third.total_s == pytest.approx(1.5 * alone.total_s)


points = st.builds(
    StepPoint,
    st.integers(1, 256),
    st.integers(0, 8),
    st.integers(0, 10**5),
    st.floats(1e-5, 10),
)


@quick
@given(
    st.lists(points, min_size=1, max_size=20),
    st.floats(0, 1e4),
    st.integers(0, 8),
    st.lists(st.floats(0, 1), max_size=8),
    st.floats(0, 1e6),
    st.floats(0, 1),
)
def test_predictions_are_finite_and_positive(
    measured: list[StepPoint],
    batch: float,
    k: int,
    acceptance: list[float],
    context: float,
    coverage: float,
) -> None:
    prediction = predict(
        LaneCost(StepTimes(measured), PREFILL),
        batch=batch,
        k=k,
        acceptance=acceptance,
        prompt_tokens=context,
        output_tokens=100,
        context=context,
        coverage=coverage,
    )

    assert isfinite(prediction.total_s)
    assert 0 < prediction.tpot_s <= prediction.ttft_s <= prediction.total_s


@quick
@given(st.lists(points, min_size=1, max_size=20), st.floats(1, 300))
def test_without_acceptance_the_cheapest_step_is_best(
    measured: list[StepPoint], batch: float
) -> None:
    cost = LaneCost(StepTimes(measured), PREFILL)
    tiers = (0, 1, 2, 4)
    chosen = cost.steps.seconds(batch, best_k(cost, batch, 0.0, 100, tiers), 100)

    assert all(chosen <= cost.steps.seconds(batch, k, 100) * 1.0301 for k in tiers)
