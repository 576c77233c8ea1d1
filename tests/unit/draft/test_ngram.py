from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayspec.draft.base import DraftRequest
from rayspec.draft.mirror import DraftSequence
from rayspec.draft.ngram import NgramDrafter


def sequence(tokens: list[int]) -> DraftSequence:
    return DraftSequence(0, 1, 8, 0.0, None, tokens)


def by_rescan(tokens: list[int], k: int, min_n: int, max_n: int) -> list[int]:
    """Return what the drafter should say, found the slow way."""
    for n in range(min(max_n, len(tokens)), min_n - 1, -1):
        for at in range(len(tokens) - 1, n - 1, -1):
            if tokens[at - n : at] == tokens[-n:]:
                grown = list(tokens)
                while len(grown) < len(tokens) + k:
                    grown.append(grown[at + len(grown) - len(tokens)])
                return grown[len(tokens) :]
    return []


@given(
    st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=5), min_size=1, max_size=12),
    st.integers(1, 6),
)
def test_the_growing_index_finds_what_a_scan_finds(parts: list[list[int]], k: int) -> None:
    drafter = NgramDrafter(2, 4)
    live = sequence([])
    drafter.add(live)
    for part in parts:
        live.extend(part)
        assert drafter.draft([DraftRequest(live, k)]) == [by_rescan(live.tokens, k, 2, 4)]


def test_the_longest_match_wins_over_the_newest() -> None:
    drafter = NgramDrafter(2, 4)
    live = sequence([1, 2, 3, 7, 9, 2, 3, 8, 1, 2, 3])
    drafter.add(live)
    assert drafter.draft([DraftRequest(live, 2)]) == [[7, 9]]


def test_a_repetition_is_continued_beyond_its_end() -> None:
    drafter = NgramDrafter(2, 4)
    live = sequence([5, 6, 5, 6])
    drafter.add(live)
    assert drafter.draft([DraftRequest(live, 5)]) == [[5, 6, 5, 6, 5]]


def test_long_prompts_are_indexed_in_the_background() -> None:
    drafter = NgramDrafter()
    long, short = sequence([1, 2, 3] * 1000), sequence([4, 5, 4, 5])
    drafter.add(long)
    drafter.add(short)
    requests = [DraftRequest(long, 2), DraftRequest(short, 2)]
    assert drafter.draft(requests) == [[], [4, 5]]
    pieces = 0
    while drafter.work():
        pieces += 1
    assert 4 <= pieces <= 8
    assert drafter.draft(requests) == [[1, 2], [4, 5]]


def test_dropped_sequences_are_forgotten() -> None:
    drafter = NgramDrafter()
    live = sequence([1, 2] * 2000)
    drafter.add(live)
    drafter.drop(live)
    assert not drafter.work()


@pytest.mark.parametrize(("min_n", "max_n"), [(0, 2), (3, 2)])
def test_sizes_are_checked(min_n: int, max_n: int) -> None:
    with pytest.raises(ValueError, match="n-gram sizes"):
        NgramDrafter(min_n, max_n)
