from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rayspec.draft.kv import Cell, CellPool
from rayspec.draft.mirror import DraftSequence

token_lists = st.lists(st.integers(0, 2), max_size=12)


def sequence(*tokens: int) -> DraftSequence:
    return DraftSequence(0, 1, 4, 0.0, None, list(tokens))


def filled(pool: CellPool, live: DraftSequence) -> Cell:
    """Return the cell of a sequence, computed up to its end."""
    cell = pool.get(live)
    assert cell is not None
    cell.advance(len(live.tokens) - cell.filled)
    return cell


@given(token_lists, st.integers(0, 12), token_lists)
def test_common_prefix(held: list[int], filled_to: int, tokens: list[int]) -> None:
    cell = Cell(0)
    cell.tokens, cell.filled = held, min(filled_to, len(held))
    expected = 0
    while expected < min(cell.filled, len(tokens)) and held[expected] == tokens[expected]:
        expected += 1
    assert cell.common(tokens) == expected


@given(
    st.lists(st.integers(0, 2), min_size=1, max_size=6),
    st.lists(st.integers(0, 2), max_size=4),
    st.lists(st.integers(0, 2), max_size=6),
)
def test_settling_keeps_what_was_drafted_right(
    begin: list[int], drafted: list[int], outcome: list[int]
) -> None:
    live = sequence(*begin)
    cell = Cell(0)
    cell.take(live)
    cell.advance(len(begin))
    cell.drafted(list(drafted))
    live.extend(outcome)
    right = 0
    while right < min(len(drafted), len(outcome)) and drafted[right] == outcome[right]:
        right += 1
    kept = min(len(begin) + right, len(live.tokens) - 1)
    assert cell.settle() == len(live.tokens) - kept
    assert cell.filled == kept
    assert cell.settle() == len(live.tokens) - kept


def test_a_cell_is_reused_for_the_longest_common_prefix() -> None:
    pool = CellPool(2)
    first, second = sequence(1, 2, 3, 4), sequence(1, 2, 9)
    for live in (first, second):
        pool.add(live)
        filled(pool, live)
    cell_of_first = pool.get(first)
    pool.drop(first)
    pool.drop(second)
    again = sequence(1, 2, 3, 5)
    pool.add(again)
    cell = pool.get(again)
    assert cell is cell_of_first
    assert cell is not None
    assert cell.filled == 3


def test_without_a_common_prefix_the_emptiest_cell_is_taken() -> None:
    pool = CellPool(2)
    long, short = sequence(*[1] * 9), sequence(2)
    for live in (long, short):
        pool.add(live)
        filled(pool, live)
    kept = pool.get(long)
    pool.drop(long)
    pool.drop(short)
    other = sequence(7, 7)
    pool.add(other)
    assert pool.get(other) is not kept


def test_sequences_wait_for_a_cell_in_order() -> None:
    pool = CellPool(1)
    lives = [sequence(number) for number in range(4)]
    for live in lives:
        pool.add(live)
    assert [pool.get(live) is not None for live in lives] == [True, False, False, False]
    pool.drop(lives[1])  # gave up waiting
    pool.drop(lives[0])
    assert pool.get(lives[2]) is not None
    assert pool.get(lives[3]) is None
    assert len(pool.used) == 1
