from __future__ import annotations

import pytest

pytest.importorskip("triton")

from rayspec.draft.mirror import DraftSequence
from rayspec.draft.rounds.catch_up import choose
from rayspec.draft.rounds.rows import Row, TargetSlots

WIDTHS = (8, 32)


def row(index: int, length: int, gap: int, *, k_want: int = 4, limit: int = 200) -> Row:
    owner = TargetSlots(0, 32, 4, 150, 50, epoch=1, sparse=False, k_want=k_want)
    sequence = DraftSequence(index, 1, 4, 0.0, None, list(range(length)))
    return Row(index, sequence, owner, widths=WIDTHS, filled=length - gap, limit=limit)


def chosen(rows: list[Row], under_way: int = 0) -> tuple[list[int], int]:
    found, width = choose(rows, under_way)
    return [each.index for each in found], width


def test_the_width_is_the_least_that_makes_up_for_the_gap() -> None:
    assert chosen([row(0, 100, 3)]) == ([0], 8)
    assert chosen([row(0, 100, 9)]) == ([0], 32)
    # A round under way may add tokens that nobody has told of.
    assert chosen([row(0, 100, 8)], under_way=5) == ([0], 32)


def test_longer_gaps_and_short_sequences_are_for_prefill() -> None:
    assert chosen([row(0, 100, 33), row(1, 20, 9), row(2, 7, 3)]) == ([], 0)


def test_who_is_too_short_for_the_widest_of_a_launch_has_the_next() -> None:
    rows = [row(0, 100, 20), row(1, 12, 4), row(2, 40, 3)]
    assert chosen(rows) == ([2, 0], 32)
    rows[0].behind = rows[2].behind = False
    assert chosen(rows) == ([1], 8)


def test_the_nearest_come_first_and_a_launch_has_sixteen() -> None:
    rows = [row(index, 100, 30 - index) for index in range(20)]
    assert chosen(rows) == (list(range(19, 3, -1)), 32)


@pytest.mark.parametrize(("gap", "due"), [(15, False), (16, True)])
def test_without_a_wish_for_drafts_a_row_is_kept_within_reach(gap: int, due: bool) -> None:
    assert bool(chosen([row(0, 100, gap, k_want=0)])[0]) is due


def test_what_has_no_blocks_for_its_tokens_or_is_too_long_waits() -> None:
    assert chosen([row(0, 100, 3, limit=96), row(1, 160, 3)]) == ([], 0)
