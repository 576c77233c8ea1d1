"""Judging the place where two answers part."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayspec.audit.lossless import Parting, judge, parting

LIKELY = {7: -0.4, 8: -0.7, 9: -3.0, 10: -6.0}


@pytest.mark.parametrize(
    ("reference", "speculative", "where"),
    [
        ([], [], None),
        ([1, 2, 3], [1, 2, 3], None),
        ([1, 2, 3], [1, 5, 3], Parting(1, 2, 5)),
        ([1, 2], [1, 2, 3], Parting(2, None, 3)),
        ([1, 2, 3], [1, 2], Parting(2, 3, None)),
        ([1], [], Parting(0, 1, None)),
    ],
)
def test_parting(reference: list[int], speculative: list[int], where: Parting | None) -> None:
    assert parting(reference, speculative) == where


@settings(deadline=None)
@given(st.lists(st.integers(0, 3), max_size=6), st.lists(st.integers(0, 3), max_size=6))
def test_everything_before_the_parting_is_shared(a: list[int], b: list[int]) -> None:
    where = parting(a, b)
    assert (where is None) == (a == b)
    if where is not None:
        assert a[: where.position] == b[: where.position]
        assert where.reference != where.speculative
        mirrored = parting(b, a)
        assert mirrored == Parting(where.position, where.speculative, where.reference)


@pytest.mark.parametrize(
    ("tokens", "limit", "margin", "explained"),
    [
        ((7, 8), 0.5, 0.3, True),
        ((8, 7), 0.5, 0.3, True),  # the plain lane itself may have taken the second
        ((7, 8), 0.2, 0.3, False),
        ((7, 9), 0.5, 2.6, False),
        ((9, 9 + 1), 5.0, 3.0, True),
    ],
)
def test_margin_decides(
    tokens: tuple[int, int], limit: float, margin: float, explained: bool
) -> None:
    verdict = judge(Parting(3, *tokens), LIKELY, limit)
    assert verdict.margin == pytest.approx(margin)
    assert verdict.explained is explained
    assert not verdict.at_least


def test_two_equal_tokens_behind_a_third_are_no_tie() -> None:
    verdict = judge(Parting(0, 2, 3), {1: -0.1, 2: -4.0, 3: -4.1}, 0.5)
    assert verdict.margin == pytest.approx(0.1)
    assert verdict.behind == pytest.approx(3.9)
    assert not verdict.explained


def test_a_token_that_is_not_listed_bounds_the_margin() -> None:
    verdict = judge(Parting(0, 7, 99), LIKELY, 0.5)
    assert verdict.margin == pytest.approx(5.6)
    assert (verdict.at_least, verdict.explained) == (True, False)
    both = judge(Parting(0, 98, 99), LIKELY, 0.5)
    assert both.margin == 0.0
    assert both.behind == pytest.approx(5.6)
    assert not both.explained


def test_an_answer_that_ended_is_explained_by_no_tie() -> None:
    verdict = judge(Parting(4, None, 7), LIKELY, math.inf)
    assert (verdict.margin, verdict.explained) == (None, False)


def test_nothing_is_explained_without_log_probabilities() -> None:
    assert not judge(Parting(0, 1, 2), {}, math.inf).explained
