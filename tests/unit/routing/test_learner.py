from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayspec.routing.cost_model import StepTimes
from rayspec.routing.learner import StepLearner
from tests.support.clock import Clock
from tests.support.properties import quick


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def learner(clock: Clock) -> StepLearner:
    return StepLearner(clock, half_life_s=60.0)


def one_point(learner: StepLearner) -> tuple[int, int, int]:
    (point,) = learner.points()
    return point.batch, point.k, point.context


def test_nothing_is_known_at_first(learner: StepLearner) -> None:
    assert learner.points() == ()
    assert learner.prefill() is None


def test_a_few_steps_are_not_believed_yet(learner: StepLearner) -> None:
    for _ in range(7):
        learner.decoded(1, 0, 100, 0.01)
    assert learner.points() == ()

    learner.decoded(1, 0, 100, 0.01)
    assert one_point(learner) == (1, 0, 100)
    assert learner.points()[0].seconds == pytest.approx(0.01)


def test_cells_tell_where_their_steps_were(learner: StepLearner) -> None:
    for _ in range(10):
        learner.decoded(5, 3.8, 300, 0.02)
        learner.decoded(7, 4.2, 500, 0.04)
        learner.decoded(7, 0, 500, 0.01)

    assert [(p.batch, p.k, p.context) for p in learner.points()] == [(7, 0, 500), (6, 4, 400)]
    assert learner.points()[1].seconds == pytest.approx(0.03, rel=0.01)


def test_the_machine_of_now_counts_most(learner: StepLearner, clock: Clock) -> None:
    for _ in range(100):
        learner.decoded(1, 0, 100, 0.01)
    clock.advance(600.0)
    for _ in range(20):
        learner.decoded(1, 0, 100, 0.02)

    assert learner.points()[0].seconds == pytest.approx(0.02, rel=0.01)


def test_a_load_that_is_not_met_any_more_is_remembered_for_a_while(
    learner: StepLearner, clock: Clock
) -> None:
    for _ in range(20):
        learner.decoded(16, 0, 100, 0.05)
    clock.advance(1200.0)
    learner.decoded(1, 0, 100, 0.01)

    assert one_point(learner) == (16, 0, 100)
    assert learner.points()[0].seconds == pytest.approx(0.05)
    clock.advance(1200.0)
    assert learner.points() == ()


def test_a_step_in_which_the_process_was_held_up_hardly_counts(learner: StepLearner) -> None:
    for _ in range(50):
        learner.decoded(1, 0, 100, 0.01)
    learner.decoded(1, 0, 100, 60.0)

    assert learner.points()[0].seconds < 0.011


def test_prefill_is_a_line_through_steps_of_many_sizes(learner: StepLearner) -> None:
    for tokens in (10, 100, 300, 500):
        learner.prefilled(tokens, 0.02 + 0.001 * tokens)

    fit = learner.prefill()
    assert fit is not None
    assert fit.base_s == pytest.approx(0.02)
    assert fit.per_token_s == pytest.approx(0.001)


def test_prompts_of_one_size_share_the_time_of_a_step_with_decoding(learner: StepLearner) -> None:
    for _ in range(10):
        learner.decoded(1, 0, 100, 0.01)
        learner.prefilled(100, 0.06)

    fit = learner.prefill()
    assert fit is not None
    assert fit.base_s == pytest.approx(0.01)
    assert fit.per_token_s == pytest.approx(0.0005)


@quick
@given(
    st.lists(
        st.tuples(
            st.integers(-1, 10**6),
            st.floats(0, 32),
            st.floats(0, 1e7),
            st.floats(allow_nan=True, allow_infinity=True),
        ),
        max_size=60,
    )
)
def test_whatever_it_is_told_it_tells_times(
    steps: list[tuple[int, float, float, float]],
) -> None:
    learner = StepLearner(Clock())
    for batch, drafts, context, seconds in steps:
        for _ in range(8):
            learner.decoded(batch, drafts, context, seconds)
        learner.prefilled(batch, seconds)

    found = learner.points()
    assert len(found) <= 64
    assert all(p.batch > 0 and p.seconds > 0 for p in found)
    if found:
        assert StepTimes(found).seconds(3, 1, 100) > 0
    fit = learner.prefill()
    assert fit is None or (fit.base_s >= 0 and fit.per_token_s > 0)


def test_memory_is_bounded(learner: StepLearner) -> None:
    for number in range(20_000):
        learner.decoded(1 + number % 300, number % 9, number * 7 % 40_000, 0.01)

    assert len(learner._cells) <= 10 * 9 * 5


def test_sums_only_grow_and_the_newest_come_first(learner: StepLearner) -> None:
    for batch in (1, 2, 1):
        learner.decoded(batch, 0.5, 100, 0.01 * batch)
    newest, older = learner.sums()

    assert (newest.batch, newest.steps, newest.drafts, newest.context) == (1, 2, 1.0, 200.0)
    assert newest.seconds == pytest.approx(0.02)
    assert (older.batch, older.steps, older.key) == (2, 1, (2, (0, 0)))


def test_sums_do_not_grow_without_bound(learner: StepLearner) -> None:
    for batch in range(1, 1000):
        learner.decoded(batch, 0, 100, 0.01)

    assert [each.batch for each in learner.sums()] == list(range(999, 983, -1))
    learner.decoded(1, 0, 100, 0.01)
    assert learner.sums()[0].steps == 1  # forgotten in between
