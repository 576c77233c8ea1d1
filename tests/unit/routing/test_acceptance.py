from __future__ import annotations

from math import isclose

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayspec.routing.acceptance import AcceptanceTracker, wilson
from rayspec.routing.types import AcceptanceEstimate, Lane, Outcome
from tests.support.clock import Clock
from tests.support.properties import quick


def outcome(name: str, drafted: int, accepted: int, steps: int = 0) -> Outcome:
    return Outcome(name, Lane.SPECULATIVE, steps, drafted, accepted, accepted + steps, True)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tracker(clock: Clock) -> AcceptanceTracker:
    return AcceptanceTracker(clock, half_life_s=60.0, known=["chat"], max_extra=2)


def test_nothing_is_known_at_first(tracker: AcceptanceTracker) -> None:
    assert tracker.estimate("chat") == AcceptanceEstimate("chat", None, 0.0, 1.0, 0.0)


def test_requests_without_drafts_teach_nothing(tracker: AcceptanceTracker) -> None:
    tracker.observe(outcome("chat", 0, 0, steps=9))

    assert tracker.estimates() == []


def test_the_mean_is_accepted_over_drafted(tracker: AcceptanceTracker) -> None:
    tracker.observe(outcome("chat", 100, 80))
    tracker.observe(outcome("chat", 300, 120))

    estimate = tracker.estimate("chat")

    assert estimate.mean == 0.5
    assert estimate.drafted == 400
    assert 0.45 < estimate.low < 0.5 < estimate.high < 0.55


def test_a_samples_weight_halves_in_its_half_life(tracker: AcceptanceTracker, clock: Clock) -> None:
    tracker.observe(outcome("chat", 100, 0))
    clock.advance(60.0)
    tracker.observe(outcome("chat", 50, 50))

    estimate = tracker.estimate("chat")

    assert estimate.drafted == pytest.approx(100)
    assert estimate.mean == pytest.approx(0.5)


def test_old_knowledge_fades_into_doubt(tracker: AcceptanceTracker, clock: Clock) -> None:
    tracker.observe(outcome("chat", 1000, 100))
    before = tracker.estimate("chat")
    clock.advance(240.0)
    after = tracker.estimate("chat")

    assert after.mean == pytest.approx(0.1)
    assert after.high - after.low > before.high - before.low
    clock.advance(6000.0)
    assert tracker.estimate("chat").mean is None


def test_tokens_of_one_step_are_one_observation(clock: Clock) -> None:
    by_step, by_token = AcceptanceTracker(clock), AcceptanceTracker(clock)
    by_step.observe(outcome("chat", 500, 250, steps=100))
    by_token.observe(outcome("chat", 500, 250, steps=500))

    assert by_step.estimate("chat").mean == by_token.estimate("chat").mean
    assert by_step.estimate("chat").high > by_token.estimate("chat").high


def test_more_accepted_than_drafted_is_not_believed(tracker: AcceptanceTracker) -> None:
    tracker.observe(outcome("chat", 10, 20))

    assert tracker.estimate("chat").mean == 1.0


def test_classes_made_up_by_clients_are_bounded_and_pooled(tracker: AcceptanceTracker) -> None:
    for number in range(50):
        tracker.observe(outcome(f"made-up-{number}", 10, number % 2 * 10))
    tracker.observe(outcome("chat", 10, 10))

    names = [estimate.workload_class for estimate in tracker.estimates()]

    assert names == ["chat", "made-up-0", "made-up-1", "other"]
    assert tracker.estimate("made-up-7").workload_class == "other"
    assert tracker.estimate("made-up-7").drafted == 480
    assert tracker.estimate("chat").mean == 1.0


def test_a_forgotten_class_gives_up_its_place(tracker: AcceptanceTracker, clock: Clock) -> None:
    for name in ("one", "two"):
        tracker.observe(outcome(name, 100, 50))
    clock.advance(3600.0)
    tracker.observe(outcome("three", 100, 50))

    assert tracker.estimate("three").workload_class == "three"
    assert tracker.estimate("one").mean is None


def test_estimating_takes_no_place(tracker: AcceptanceTracker) -> None:
    for number in range(50):
        tracker.estimate(f"made-up-{number}")

    assert tracker.estimates() == []


def test_a_half_life_must_be_positive(clock: Clock) -> None:
    with pytest.raises(ValueError, match="half_life_s"):
        AcceptanceTracker(clock, 0.0)


def test_wilson_agrees_with_the_published_example() -> None:
    # Newcombe (1998), table I: 81 of 263 gives 0.2553 to 0.3662.
    low, high = wilson(81 / 263, 263, z=1.959964)

    assert isclose(low, 0.2553, abs_tol=5e-5)
    assert isclose(high, 0.3662, abs_tol=5e-5)


@quick
@given(st.floats(0, 1), st.floats(0, 1e9))
def test_wilson_contains_the_share_within_bounds(share: float, trials: float) -> None:
    low, high = wilson(share, trials)

    assert 0.0 <= low <= share <= high <= 1.0
