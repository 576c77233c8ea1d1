"""The kernels that choose drafts, in Triton's interpreter; run by `test_interpreted`."""

from __future__ import annotations

import pytest

from tests.support.sampling_checks import (
    check_drafts_are_given_out_with_their_weights,
    check_greedy_takes_the_lowest_of_equals,
    check_sampled_ids_follow_the_weights,
    check_top_and_weights,
)

VOCABS = [40, 600]


@pytest.mark.parametrize("vocab", VOCABS)
def test_greedy_takes_the_lowest_of_equals(vocab: int) -> None:
    check_greedy_takes_the_lowest_of_equals("cpu", vocab)


@pytest.mark.parametrize("vocab", VOCABS)
@pytest.mark.parametrize("top", [2, 32])
def test_top_and_weights(vocab: int, top: int) -> None:
    check_top_and_weights("cpu", vocab, top)


def test_sampled_ids_follow_the_weights() -> None:
    check_sampled_ids_follow_the_weights("cpu", rows=8, rounds=48)


def test_drafts_are_given_out_with_their_weights() -> None:
    check_drafts_are_given_out_with_their_weights("cpu")
