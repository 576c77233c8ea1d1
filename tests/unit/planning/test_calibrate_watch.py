"""When streams have decoded together for long enough."""

from __future__ import annotations

import pytest

from rayspec.planning.calibrate_client import Chunk
from rayspec.planning.calibrate_watch import Effort, Watch

EFFORT = Effort(steps=4, seconds=1.0)


def enough_after(schedule: list[list[float]], effort: Effort = EFFORT) -> float | None:
    """Return when it was enough, of streams whose chunks come at these times."""
    streams: list[list[Chunk]] = [[] for _ in schedule]
    watch = Watch(streams, effort)
    events = sorted((at, n) for n, times in enumerate(schedule) for at in times)
    for at, number in events:
        streams[number].append(Chunk(at, 1))
        watch.look()
        if watch.enough.is_set():
            return at
    return None


def steps(first: float, count: int, step: float = 0.5) -> list[float]:
    return [first + step * n for n in range(count)]


@pytest.mark.parametrize(
    ("schedule", "when"),
    [
        ([steps(0.0, 9)], 2.0),  # four steps after the first chunk
        ([steps(0.0, 30, 0.1)], 1.0),  # a second of short ones
        ([steps(0.0, 30), steps(3.0, 30)], 5.0),  # since the last one has begun
        ([steps(0.0, 4), steps(0.0, 4)], None),
    ],
)
def test_so_many_steps_and_seconds_of_all(schedule: list[list[float]], when: float | None) -> None:
    found = enough_after(schedule)

    assert found == (None if when is None else pytest.approx(when))


def test_a_stream_that_never_begins_is_not_waited_for_for_ever() -> None:
    assert enough_after([steps(0.0, 2000), []]) == pytest.approx(0.5 * 32)
    # A GPU's steps are short: they are to take a while, too.
    assert enough_after([steps(0.0, 2000, 0.01), []]) == pytest.approx(8.01)


def test_nor_is_one_that_stands() -> None:
    assert enough_after([steps(0.0, 2000), steps(0.1, 2)]) == pytest.approx(0.5 * 32)
