"""What a test would find, against what it does find."""

from __future__ import annotations

import numpy as np

from rayspec.audit.permutation import ENDED, Rows, positions, two_sample
from rayspec.audit.power import POWER, detectable, typical

LENGTH, ALPHA = 6, 0.01


def answers(rng: np.random.Generator, number: int) -> list[list[int]]:
    return [[int(t) for t in row] for row in rng.choice(8, (number, LENGTH), p=SKEWED)]


SKEWED = [0.3, 0.2, 0.15, 0.1, 0.1, 0.05, 0.05, 0.05]


def smallest(rows: Rows, first: int) -> float | None:
    critical = two_sample(positions(rows, LENGTH), first, alpha=ALPHA, shuffles=4999).critical
    return detectable(positions([*rows, typical(rows, LENGTH)], LENGTH), first, critical)


def test_typical_answer_ends_where_most_do() -> None:
    assert typical([[1, 2, 3], [1, 2], [4, 2]], 3) == [1, 2]
    assert typical([[1, 2, 3], [1, 5, 3]], 2) == [1, 2]
    assert ENDED not in typical([[], [], [1]], 2)


def test_a_fault_of_the_told_size_is_found_as_often_as_told() -> None:
    share = smallest(answers(np.random.default_rng(0), 200), 100)
    assert share is not None
    assert 0.03 <= share <= 0.3
    found = 0
    for seed in range(40):
        rng = np.random.default_rng(100 + seed)
        rows = answers(rng, 200)
        for row in rows[: rng.binomial(100, share)]:
            row[:] = [0] * LENGTH
        result = two_sample(positions(rows, LENGTH), 100, alpha=ALPHA, seed=seed, shuffles=999)
        found += result.p <= ALPHA
    # Of 40 draws with a chance of 80 % fewer than 25 have a chance of 0.3 %.
    assert found >= 25
    assert POWER == 0.8


def test_more_answers_find_less() -> None:
    few, many = (smallest(answers(np.random.default_rng(5), n), n // 2) for n in (60, 600))
    assert few is not None
    assert many is not None
    assert many < few


def test_nothing_can_be_found_where_all_answers_are_the_same() -> None:
    assert smallest([[1, 2, 3]] * 60, 30) is None
