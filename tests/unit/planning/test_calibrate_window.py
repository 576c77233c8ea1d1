"""The steady part of streams, from the times of their chunks."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayspec.planning.calibrate_client import Chunk
from rayspec.planning.calibrate_window import common, steady_steps, step_window


def stream(times: Sequence[float], tokens: int = 1) -> list[Chunk]:
    return [Chunk(at, tokens) for at in times]


def steps(first: int, last: int, step: float = 0.1, jitter: float = 0.0) -> list[float]:
    return [n * step + jitter for n in range(first, last + 1)]


def test_streams_that_never_overlap_have_no_window() -> None:
    early, late = stream([0.0, 0.1, 0.2]), stream([0.3, 0.4])
    assert common([early, late]) is None
    assert steady_steps([early, late]) == 0
    assert step_window([early, late], [10, 10]) is None
    assert step_window([early, []], [10, 10]) is None
    assert step_window([stream([1.0])], [10]) is None


def test_only_the_time_in_which_all_decode_counts() -> None:
    # Alone the first stream steps in 0.05 s; both together in 0.1 s.
    first = stream([0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.45, 0.5])
    second = stream([0.1, 0.2, 0.3, 0.4])
    window = step_window([first, second], [10, 20])
    assert window is not None
    assert (window.batch, window.steps) == (2, 3)
    assert window.seconds == pytest.approx(0.1)
    # At its middle the first has 10 + 3 + 1.5 tokens, the second 20 + 1 + 1.5.
    assert window.context == pytest.approx((14.5 + 22.5) / 2)
    assert steady_steps([first, second]) == 3


def test_chunks_of_one_step_that_come_a_little_apart_are_one_step() -> None:
    streams = [stream(steps(0, 8, jitter=j)) for j in (0.0, 0.004, -0.003)]
    window = step_window(streams, [5, 5, 5])
    assert window is not None
    assert window.steps == 8
    assert window.seconds == pytest.approx(0.1)


def test_a_chunk_that_holds_two_steps_does_not_make_them_longer() -> None:
    whole = stream(steps(0, 6))
    merged = [*stream([0.0, 0.1, 0.2]), Chunk(0.4, 2), *stream([0.5, 0.6])]
    window = step_window([whole, merged], [5, 5])
    assert window is not None
    assert window.steps == 6
    assert window.seconds == pytest.approx(0.1)


def test_steps_with_and_without_drafts_are_averaged() -> None:
    times = [0.0, 0.1, 0.3, 0.4, 0.6]
    window = step_window([stream(times, tokens=2)], [7])
    assert window is not None
    assert window.seconds == pytest.approx(0.15)
    assert window.tokens == pytest.approx(2)


def test_chunks_that_come_in_bursts_do_not_make_steps_short() -> None:
    # Steps of 0.1 s, read three at a time.
    times = [0.0, 0.3, 0.3001, 0.3002, 0.6, 0.6001, 0.6002, 0.9, 0.9001, 0.9002]
    window = step_window([stream(times)], [7])
    assert window is not None
    assert window.seconds == pytest.approx(0.1, rel=1e-3)


def test_two_lanes_are_cut_to_the_time_that_they_share() -> None:
    slow, quick = stream(steps(0, 5, 0.2)), stream(steps(4, 40, 0.05))
    span = common([slow, quick])
    assert span is not None
    assert list(span) == pytest.approx([0.2, 1.0])
    one = step_window([slow], [5], within=span)
    other = step_window([quick], [5], within=span)
    assert one is not None
    assert other is not None
    assert (one.steps, other.steps) == (4, 16)
    assert [one.seconds, other.seconds] == pytest.approx([0.2, 0.05])


@given(
    st.floats(0.002, 0.5),
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4)), min_size=1, max_size=8),
)
def test_a_steady_engine_is_measured_exactly(
    step: float, offsets: Sequence[tuple[int, int]]
) -> None:
    streams = [stream(steps(late, 20 - early, step)) for late, early in offsets]
    window = step_window(streams, [1] * len(streams))
    assert window is not None
    assert window.seconds == pytest.approx(step)
    latest = max(late for late, _ in offsets)
    assert window.steps == 20 - max(early for _, early in offsets) - latest
