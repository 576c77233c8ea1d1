from __future__ import annotations

import pytest

pytest.importorskip("triton")

from rayspec.draft.mirror import DraftSequence
from rayspec.draft.rounds.prefill import next_piece
from rayspec.draft.rounds.rows import Row, TargetSlots


def target(k_want: int = 4) -> TargetSlots:
    return TargetSlots(0, 8, 4, 100, 50, epoch=1, sparse=False, k_want=k_want)


def row(index: int, length: int, filled: int = 0, *, k_want: int = 4, limit: int = 100) -> Row:
    sequence = DraftSequence(index, 1, 4, 0.0, None, list(range(length)))
    return Row(index, sequence, target(k_want), filled=filled, limit=limit)


def spans(rows: list[Row], most: int) -> list[tuple[int, int, int]]:
    piece = next_piece(rows, most)
    return [] if piece is None else [(p.row.index, p.start, p.end) for p in piece.parts]


def test_rows_closest_to_being_ready_come_first_and_share_a_piece() -> None:
    rows = [row(0, 40), row(1, 10), row(2, 30, filled=25)]
    assert spans(rows, 64) == [(2, 25, 30), (1, 0, 10), (0, 0, 40)]
    assert spans(rows, 20) == [(2, 25, 30), (1, 0, 10), (0, 0, 5)]
    assert spans(rows, 15) == [(2, 25, 30), (1, 0, 10)]


def test_what_rounds_make_up_for_or_cannot_be_had_is_left_out() -> None:
    broken = row(3, 20)
    broken.broken = True
    ready = row(4, 20)
    ready.behind = False
    without_blocks = row(5, 20, limit=16)
    assert spans([row(1, 12, filled=10), broken, ready, without_blocks], 64) == []
    # Not token by token while no drafts are wanted.
    assert spans([row(1, 20, k_want=0)], 64) == []
    assert spans([row(1, 40, k_want=0)], 64) == [(1, 0, 40)]
