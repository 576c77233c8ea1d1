"""Two-sample tests: planted differences are found, and nothing is where there is none."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayspec.audit.permutation import ENDED, holm, pairs, positions, statistic, two_sample

ALPHA = 0.01


def chain(rng: np.random.Generator, answers: int, length: int, stay: float) -> list[list[int]]:
    """Answers of a Markov chain over six tokens: as before with `stay`, else any."""
    rows = []
    for _ in range(answers):
        row = [int(rng.integers(6))]
        while len(row) < length:
            row.append(row[-1] if rng.random() < stay else int(rng.integers(6)))
        rows.append(row)
    return rows


def test_statistic_of_one_position_is_pearsons() -> None:
    rows = [[0]] * 30 + [[1]] * 10 + [[0]] * 15 + [[1]] * 25
    found = two_sample(positions(rows, 1), 40, alpha=ALPHA)
    expected = sum((o - e) ** 2 / e for o, e in ((30, 22.5), (10, 17.5), (15, 22.5), (25, 17.5)))
    assert found.statistic == pytest.approx(expected)
    assert found.most == (0, 1)
    assert found.shares == (0.25, 0.625)


def test_p_value_is_that_of_the_exact_test() -> None:
    # Fisher: 3 of 12 against 9 of 12, both tails of the hypergeometric distribution.
    rows = [[0]] * 3 + [[1]] * 9 + [[0]] * 9 + [[1]] * 3
    table = [math.comb(12, k) * math.comb(12, 12 - k) / math.comb(24, 12) for k in range(13)]
    exact = sum(p for k, p in enumerate(table) if abs(k - 6) >= 3)
    found = two_sample(positions(rows, 1), 12, alpha=0.05)
    assert found.p == pytest.approx(exact, abs=0.004)


def test_statistic_of_counts_agrees_with_the_test() -> None:
    rows = chain(np.random.default_rng(3), 80, 5, 0.5)
    features = pairs(rows, 5)
    first, second = features.counts[:30].sum(0), features.counts[30:].sum(0)
    found = two_sample(features, 30, alpha=ALPHA)
    assert float(statistic(first, second, 30 / 80)) == pytest.approx(found.statistic)


@pytest.mark.parametrize("build", [positions, pairs])
def test_equal_lanes_raise_no_more_alarms_than_allowed(build: type) -> None:
    alarms = 0
    for seed in range(60):
        rows = chain(np.random.default_rng(seed), 60, 6, 0.6)
        alarms += two_sample(build(rows, 6), 30, alpha=0.1, seed=seed, shuffles=499).p <= 0.1
    # 60 draws of 10 %: more than 14 have a chance of 0.2 %, and the seeds are fixed.
    assert alarms <= 14


def test_follow_the_draft_is_found_at_its_position() -> None:
    rng = np.random.default_rng(1)
    ours, theirs = chain(rng, 200, 6, 0.0), chain(rng, 200, 6, 0.0)
    for row in ours[:60]:
        row[3] = 2
    found = two_sample(positions([*ours, *theirs], 6), 200, alpha=ALPHA)
    assert found.p <= 0.001
    assert found.most == (3, 2)
    assert [at for at, p in enumerate(found.by_group) if p <= 0.001] == [3]
    assert found.statistic > found.critical


def test_dependence_between_tokens_is_found_where_each_alone_is_the_same() -> None:
    rng = np.random.default_rng(2)
    ours, theirs = chain(rng, 150, 8, 0.45), chain(rng, 150, 8, 0.1)
    both = [*ours, *theirs]
    assert two_sample(positions(both, 8), 150, alpha=ALPHA).p > 0.05
    assert two_sample(pairs(both, 8), 150, alpha=ALPHA).p <= 0.001


def test_lengths_count() -> None:
    ours, theirs = [[1, 2, 3]] * 40, [[1, 2, 3, 4]] * 40
    found = two_sample(positions([*ours, *theirs], 4), 40, alpha=ALPHA)
    assert found.p <= 0.001
    assert found.most in {(3, ENDED), (3, 4)}
    assert two_sample(pairs([*ours, *theirs], 4), 40, alpha=ALPHA).p <= 0.001


def test_rare_tokens_are_pooled() -> None:
    rows = [[100 + n] for n in range(60)] + [[7]] * 60
    features = positions(rows, 1)
    assert set(features.names) == {(0, 7), (0, "rare")}
    assert features.counts.sum() == 120


def test_one_answer_only_shows_no_difference() -> None:
    found = two_sample(positions([[1, 2]] * 40, 2), 20, alpha=ALPHA)
    assert (found.statistic, found.p, found.by_group) == (0.0, 1.0, (1.0, 1.0))


def test_small_levels_can_be_reached() -> None:
    rows = [[0]] * 20 + [[1]] * 20
    assert two_sample(positions(rows, 1), 20, alpha=1e-4).p <= 1e-4


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=5), min_size=8, max_size=30),
    st.data(),
)
def test_which_sample_is_first_does_not_matter(rows: list[list[int]], data: st.DataObject) -> None:
    first = data.draw(st.integers(2, len(rows) - 2))
    one = two_sample(positions(rows, 5), first, alpha=0.05, shuffles=999)
    turned = positions([*rows[first:], *rows[:first]], 5)
    other = two_sample(turned, len(rows) - first, alpha=0.05, shuffles=999)
    assert one.statistic == pytest.approx(other.statistic)
    assert one.p == pytest.approx(other.p, abs=0.08)
    assert 0 < one.p <= 1


@pytest.mark.parametrize(
    ("p_values", "adjusted"),
    [
        ([], []),
        ([0.02], [0.02]),
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.9, 0.8], [1.0, 1.0]),
    ],
)
def test_holm(p_values: list[float], adjusted: list[float]) -> None:
    assert holm(p_values) == pytest.approx(adjusted)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_lies_between_none_and_bonferroni(p_values: list[float]) -> None:
    for p, adjusted in zip(p_values, holm(p_values), strict=True):
        assert p <= adjusted <= min(1.0, p * len(p_values)) + 1e-12 or adjusted >= p
        assert adjusted <= 1
