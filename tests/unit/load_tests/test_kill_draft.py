"""What a drill with a killed draft concludes from its streams."""

from __future__ import annotations

import json
from typing import Any

import pytest

from load_tests.kill_draft import Drill, phase, stalls_ms, summarize
from load_tests.streaming import Reply, read_event, sum_samples

DRILL = Drill(killed=10.0, drafting=20.0)


def reply(*times: float, tokens: int = 4, **more: Any) -> Reply:
    whole: dict[str, Any] = {"done": True, "finish_reason": "stop"}
    return Reply(0, "text", tokens, times=list(times), **(whole | more))


def event(delta: str | None = None, **more: Any) -> str:
    choices = [] if delta is None else [{"delta": {"content": delta}, **more}]
    return json.dumps({"choices": choices, **({} if choices else more)})


def test_a_whole_stream() -> None:
    got = Reply(0, times=[0.0])
    for data in (
        event(""),
        event("Hel"),
        event("lo", finish_reason="stop"),
        event(usage={"completion_tokens": 2}),
        "[DONE]",
    ):
        assert got.error == "the stream ended before the answer"
        read_event(got, data)
    assert (got.text, got.tokens, got.error, len(got.times)) == ("Hello", 2, None, 3)


def test_an_error_in_the_stream_is_a_lost_request() -> None:
    got = Reply(0, times=[0.0])
    for data in (event("Hel"), json.dumps({"error": {"message": "dead"}}), "[DONE]"):
        read_event(got, data)
    assert got.error is not None
    assert "dead" in got.error


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ((1.0, 2.0, 9.0), "before"),
        ((1.0, 2.0, 11.0), "hit"),
        ((1.0, 2.0, 30.0), "hit"),
        ((12.0, 13.0, 30.0), "without"),
        ((21.0, 22.0), "after"),
    ],
)
def test_phases(times: tuple[float, ...], expected: str) -> None:
    assert phase(reply(*times), DRILL) == expected


def test_speeds_are_those_after_the_first_chunk() -> None:
    table = summarize(
        [
            reply(0.0, 1.0, 1.1, 1.6),
            reply(0.0, 1.0, 1.3, done=False),
            reply(9.0, 9.5),
        ],
        DRILL,
    )
    before = table["before"]
    assert (before["requests"], before["lost"]) == (3, 1)
    assert before["tpot_median_ms"] == pytest.approx(150)
    assert before["tpot_worst_ms"] == pytest.approx(200)
    assert before["gap_worst_ms"] == pytest.approx(500)
    assert table["after"] == {
        "requests": 0,
        "lost": 0,
        "tpot_median_ms": None,
        "tpot_worst_ms": None,
        "gap_worst_ms": None,
    }


def test_the_pause_at_the_kill_is_that_of_the_streams_it_hit() -> None:
    replies = [
        reply(1.0, 2.0, 9.0),  # was over
        reply(1.0, 2.0, 9.9, 10.2, 15.0),
        reply(12.0, 13.0, 19.0),  # began later
        reply(9.0, 9.9, 10.05, 10.1, 30.0),
    ]
    assert stalls_ms(replies, DRILL) == pytest.approx([4800, 19900])
    assert stalls_ms(replies[::2], DRILL) == []


def test_samples_of_one_metric_are_summed() -> None:
    text = '# TYPE a counter\na{x="1"} 2.0\na{x="2"} 3.0\na_total 9.0\na 1.0\n'
    assert sum_samples(text, "a") == 6.0
