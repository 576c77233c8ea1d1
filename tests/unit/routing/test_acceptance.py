from __future__ import annotations

from dataclasses import replace
from math import isclose

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayspec.routing.acceptance import AcceptanceTracker, wilson
from rayspec.routing.cost_model import expected_tokens
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


def counted(*by_accepted: int, idle: int = 0, k: int | None = None) -> Outcome:
    """Return a request whose steps accepted 0, 1, … tokens so many times, `k` drafts in each."""
    steps = sum(by_accepted)
    accepted = sum(j * count for j, count in enumerate(by_accepted))
    drafted = steps * (len(by_accepted) - 1)
    return replace(
        outcome("chat", drafted, accepted, steps), by_accepted=by_accepted, idle_steps=idle, k=k
    )


def means(tracker: AcceptanceTracker) -> list[float]:
    return [position.mean for position in tracker.estimate("chat").positions]


def test_each_position_is_conditional_on_those_before(tracker: AcceptanceTracker) -> None:
    tracker.observe(counted(40, 30, 20, 10))

    assert means(tracker) == pytest.approx([0.6, 0.5, 1 / 3])
    trials = [position.trials for position in tracker.estimate("chat").positions]
    assert trials == [100, 60, 30]
    # The tokens of a step follow from the positions exactly.
    accepted = expected_tokens(means(tracker), 3) - 1
    assert accepted == pytest.approx(counted(40, 30, 20, 10).accepted / 100)


def test_a_position_s_interval_holds_its_mean_and_narrows(tracker: AcceptanceTracker) -> None:
    tracker.observe(counted(4, 3, 3))
    few = tracker.estimate("chat").positions
    for _ in range(20):
        tracker.observe(counted(4, 3, 3))
    many = tracker.estimate("chat").positions

    for one, other in zip(few, many, strict=True):
        assert one.low < one.mean < one.high
        assert other.high - other.low < one.high - one.low


def test_a_step_without_a_draft_accepted_nothing(tracker: AcceptanceTracker) -> None:
    tracker.observe(counted(0, 0, 50, idle=50))

    assert means(tracker) == [0.5, 1.0]
    assert tracker.estimate("chat").coverage == 0.5
    assert tracker.estimate("chat").mean == 1.0  # of the tokens that were drafted


def test_a_class_without_any_draft_is_known_to_get_none(tracker: AcceptanceTracker) -> None:
    tracker.observe(replace(outcome("chat", 0, 0), idle_steps=80, k=4, by_accepted=(0,) * 5))

    assert means(tracker) == [0.0]
    assert tracker.estimate("chat").coverage == 0.0


def test_positions_that_were_not_asked_for_are_not_judged(tracker: AcceptanceTracker) -> None:
    tracker.observe(counted(0, 100, 0, 0, 0, k=1))
    tracker.observe(counted(0, 0, 0, 0, 100, k=4))

    assert means(tracker) == [1.0] * 4


def test_positions_decay_with_the_rest(tracker: AcceptanceTracker, clock: Clock) -> None:
    tracker.observe(counted(0, 100))
    clock.advance(60.0)
    tracker.observe(counted(50, 0))

    assert means(tracker) == pytest.approx([0.5])
    clock.advance(6000.0)
    assert means(tracker) == []


@quick
@given(st.floats(0, 1), st.integers(1, 8), st.integers(1, 1000))
def test_totals_alone_give_one_chance_for_all_positions(
    acceptance: float, k: int, steps: int
) -> None:
    accepted = round(steps * (expected_tokens(acceptance, k) - 1))
    tracker = AcceptanceTracker(Clock())
    tracker.observe(outcome("chat", steps * k, accepted, steps))

    found = means(tracker)
    assert found == pytest.approx([found[0]] * len(found), abs=1e-6)
    if len(found) == k:
        assert steps * (expected_tokens(found, k) - 1) == pytest.approx(accepted, abs=1e-3)


@quick
@given(
    st.lists(st.lists(st.integers(0, 50), max_size=6), max_size=5),
    st.integers(0, 20),
    st.none() | st.integers(0, 8),
)
def test_any_counts_give_shares(requests: list[list[int]], idle: int, k: int | None) -> None:
    tracker = AcceptanceTracker(Clock())
    for counts in requests:
        tracker.observe(replace(counted(*counts, k=k), idle_steps=idle) if counts else counted(0))

    estimate = tracker.estimate("chat")
    assert 0 <= estimate.coverage <= 1
    for position in estimate.positions:
        assert 0 <= position.low <= position.mean <= position.high <= 1
