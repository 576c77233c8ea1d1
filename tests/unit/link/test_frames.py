from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rayspec.errors import LinkError
from rayspec.link.protocol import D2T, HEADER_WORDS, T2D, FrameShape, StepRow

tokens = st.integers(0, 2**31 - 1)


@st.composite
def shapes(draw: st.DrawFn) -> FrameShape:
    return FrameShape(draw(st.integers(1, 9)), draw(st.integers(1, 12)))


def rows_of(shape: FrameShape, most: int) -> st.SearchStrategy[list[StepRow]]:
    row = st.builds(
        StepRow,
        st.integers(0, shape.slots - 1),
        tokens,
        st.lists(tokens, max_size=most).map(tuple),
    )
    unique = st.lists(row, max_size=shape.slots, unique_by=lambda row: row.slot)
    return unique.map(lambda rows: sorted(rows, key=lambda row: row.slot))


@given(st.data(), shapes())
def test_steps_survive_the_frame(data: st.DataObject, shape: FrameShape) -> None:
    step = T2D(
        epoch=data.draw(tokens),
        step=data.draw(tokens),
        cseq_required=data.draw(tokens),
        k_want=data.draw(st.integers(0, shape.k_max)),
        rows=data.draw(rows_of(shape, shape.k_max + 1)),
        checksum=data.draw(st.none() | tokens),
    )
    frame = step.pack(shape)
    assert frame.shape == shape.size
    assert frame.dtype == torch.int32
    assert T2D.unpack(frame, shape) == step


@given(st.data(), shapes())
def test_replies_survive_the_frame(data: st.DataObject, shape: FrameShape) -> None:
    reply = D2T(
        epoch=data.draw(tokens),
        step=data.draw(tokens),
        t_draft_us=data.draw(tokens),
        rows=data.draw(rows_of(shape, shape.k_max)),
    )
    assert D2T.unpack(reply.pack(shape), shape) == reply


@given(st.data(), shapes())
def test_random_frames_are_a_step_or_a_link_error(data: st.DataObject, shape: FrameShape) -> None:
    frame = T2D(1, 2, 3, 1, [StepRow(0, 1, (5,))]).pack(shape)
    at = data.draw(st.integers(0, frame.numel() - 1))
    frame.view(-1)[at] = data.draw(st.integers(-(2**31), 2**31 - 1))
    try:
        step = T2D.unpack(frame, shape)
    except LinkError:
        return
    assert all(len(row.tokens) <= shape.k_max + 1 for row in step.rows)


def test_small_k_still_has_room_for_the_header() -> None:
    assert FrameShape(4, 1).size == (5, HEADER_WORDS)
    assert FrameShape(4, 9).size == (5, 12)


def test_a_long_draft_time_does_not_overflow() -> None:
    shape = FrameShape(1, 1)
    assert D2T.unpack(D2T(1, 1, 2**40, ()).pack(shape), shape).t_draft_us == 2**31 - 1


@pytest.mark.parametrize("row", [StepRow(2, 1), StepRow(-1, 1), StepRow(0, 1, (1,) * 6)])
def test_rows_that_do_not_fit_are_refused(row: StepRow) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        T2D(1, 1, 1, 1, [row]).pack(FrameShape(2, 4))


def test_frames_of_another_link_are_refused() -> None:
    shape = FrameShape(2, 4)
    frame = T2D(1, 1, 1, 1, ()).pack(shape)
    with pytest.raises(LinkError, match="expected int32"):
        T2D.unpack(frame, FrameShape(3, 4))
    with pytest.raises(LinkError, match="step frame starts with"):
        D2T.unpack(frame, shape)
    frame[0, 5] = 5
    with pytest.raises(LinkError, match="wants 5 drafts, at most 4 fit"):
        T2D.unpack(frame, shape)
