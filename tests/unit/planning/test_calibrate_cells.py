"""Which cells a calibration has, and in which order."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayspec.planning.calibrate_cells import (
    Cell,
    ClassCell,
    ContentionCell,
    Depth,
    MixedCell,
    PrefillCell,
    StepCell,
    plan,
)
from rayspec.planning.calibration import CALIBRATED
from rayspec.routing.types import Lane

BOTH = CALIBRATED


def cells(depth: Depth = "quick", lanes: tuple[Lane, ...] = BOTH, **more: Any) -> list[Cell]:
    sizes: dict[str, Any] = {"k_max": 4, "max_len": 2048}
    seats = more.pop("seats", None) or dict.fromkeys(lanes, 16)
    return plan(seats, ("code", "chat"), depth=depth, **(sizes | more))


def test_quick() -> None:
    found = cells()
    assert Counter(type(cell) for cell in found) == {
        StepCell: 5 * 4 + 2,
        PrefillCell: 2,
        MixedCell: 2,
        ClassCell: 2,
        ContentionCell: 2,
    }
    spec = [c for c in found if isinstance(c, StepCell) and c.lane is Lane.SPECULATIVE]
    assert {(c.batch, c.k) for c in spec} == {(b, k) for b in (1, 2, 4, 8, 16) for k in (0, 2, 4)}
    assert {c.context for c in spec} == {128, 1024}


def test_full_looks_three_times_and_closer() -> None:
    quick, full = set(cells()), cells("full")
    assert {c.k for c in full if isinstance(c, StepCell)} == {0, 1, 2, 3, 4}
    assert quick <= set(full)
    rounds = [getattr(cell, "round", 0) for cell in full]
    # What a fit needs comes first: a budget may end after it.
    assert rounds == sorted(rounds)
    assert set(rounds) == {0, 1, 2}


@pytest.mark.parametrize("lane", BOTH)
def test_one_lane_has_nothing_to_contend_with(lane: Lane) -> None:
    found = cells(lanes=(lane,), k_max=4 if lane is Lane.SPECULATIVE else 0)
    assert not any(isinstance(cell, ContentionCell) for cell in found)
    assert any(isinstance(cell, ClassCell) for cell in found) == (lane is Lane.SPECULATIVE)
    assert {c.lane for c in found if isinstance(c, StepCell | PrefillCell)} == {lane}


def test_own_draft_lengths() -> None:
    found = cells(tiers=(1, 3))
    spec = {c.k for c in found if isinstance(c, StepCell) and c.lane is Lane.SPECULATIVE}
    plain = {c.k for c in found if isinstance(c, StepCell) and c.lane is Lane.PLAIN}
    assert (spec, plain) == ({1, 3}, {0})


def test_each_lane_is_measured_up_to_its_own_seats() -> None:
    found = cells("full", seats={Lane.SPECULATIVE: 6, Lane.PLAIN: 64})
    steps = [cell for cell in found if isinstance(cell, StepCell)]
    batches = {lane: {c.batch for c in steps if c.lane is lane} for lane in CALIBRATED}
    assert batches == {Lane.SPECULATIVE: {1, 2, 4, 6}, Lane.PLAIN: {1, 2, 4, 8, 16, 32, 64}}
    assert {c.batch for c in found if isinstance(c, ContentionCell)} == {1, 4}


@given(
    st.sampled_from(["quick", "full"]),
    st.integers(1, 32),
    st.integers(1, 300),
    st.integers(64, 200_000),
)
def test_everything_fits_the_engines(depth: Depth, k_max: int, batch: int, length: int) -> None:
    found = cells(depth, k_max=k_max, seats=dict.fromkeys(Lane, batch), max_len=length)
    assert len(set(found)) == len(found)
    for cell in found:
        if isinstance(cell, StepCell | ContentionCell):
            assert 1 <= cell.batch <= batch
            assert 0 <= cell.k <= k_max
            assert 1 <= cell.context <= length // 2
        if isinstance(cell, PrefillCell):
            assert len(set(cell.lengths)) == len(cell.lengths) >= 2
            assert 1 <= min(cell.lengths) <= max(cell.lengths) < length
