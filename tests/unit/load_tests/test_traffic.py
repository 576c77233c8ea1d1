"""From lines of a stream to the figures of a result."""

from __future__ import annotations

import json
import random
from itertools import count
from pathlib import Path
from typing import Any

import msgpack
import pytest

from load_tests.traffic.answer import Answer, error_text
from load_tests.traffic.histogram import Histogram
from load_tests.traffic.result import StepTimes, fold, read_result
from load_tests.traffic.tally import Slo, Tally
from tests.support.load import stream_lines

HEADERS = {
    "x-rayspec-lane": "speculative",
    "x-rayspec-class": "code",
    "x-rayspec-reason": "faster 812ms < 955ms",
}


def answer(tokens: tuple[str, ...] = ("a", "b", "c"), *, second: float = 0.1) -> Answer:
    """An answer whose chunks come `second` apart."""
    ticks = count()
    told = Answer(clock=lambda: next(ticks) * second)
    told.begin()
    told.headers(HEADERS)
    for line in stream_lines(tokens):
        told.line(line)
    return told


def test_percentiles_are_within_one_percent() -> None:
    rng = random.Random(2)
    values = [rng.lognormvariate(2, 1.5) for _ in range(5000)]
    halves = [Histogram(), Histogram()]
    for number, value in enumerate(values):
        halves[number % 2].add(value)
    whole = halves[0]
    whole.merge(Histogram.unpack(msgpack.unpackb(msgpack.packb(halves[1].pack()))))
    values.sort()
    for share in (0.01, 0.5, 0.95, 0.99, 1.0):
        exact = values[max(round(share * len(values)) - 1, 0)]
        assert whole.percentile(share) == pytest.approx(exact, rel=0.01)
    summary = whole.summary()
    assert summary is not None
    assert summary["count"] == 5000
    assert summary["mean"] == pytest.approx(sum(values) / 5000, rel=1e-4)
    assert summary["max"] == pytest.approx(values[-1], rel=1e-4)


def test_a_histogram_without_values_and_with_zeros() -> None:
    assert Histogram().percentile(0.5) is None
    assert Histogram().summary() is None
    zeros = Histogram()
    zeros.add(0.0)
    assert zeros.percentile(0.5) == 0


def test_what_a_user_sees() -> None:
    told = answer()
    assert (told.lane, told.recognised, told.reason) == ("speculative", "code", "faster")
    assert told.text == "abc"
    assert told.error is None
    assert told.ttft_ms == pytest.approx(100)
    # Two chunks with one and two tokens after the first one.
    assert told.tpot_ms == pytest.approx(200 / 3)
    assert told.gaps == pytest.approx([100, 100])
    assert told.e2e_ms == pytest.approx(300)
    assert told.tokens_per_s == pytest.approx(4 / 0.3)
    assert told.acceptance == 0.25
    assert (told.prompt_tokens, told.output_tokens, told.tokens) == (10, 4, 4)


def test_a_server_without_token_ids() -> None:
    told = Answer()
    told.begin()
    told.headers({})
    told.line(b'data: {"choices": [{"delta": {"content": "a"}, "finish_reason": "stop"}]}\n')
    told.line(b": a comment\n")
    told.line(b"data: [DONE]\n")
    assert (told.lane, told.recognised, told.reason) == ("none", "none", "none")
    assert (told.tokens, told.error, told.tpot_ms, told.acceptance) == (1, None, None, None)


def test_answers_that_are_not_whole() -> None:
    broken = Answer()
    broken.begin()
    for line in stream_lines(["a", "b"], end=False):
        broken.line(line)
    assert broken.error == "the stream ended before the answer"
    event = {"error": {"type": "Unavailable", "message": "the replica was lost"}}
    broken.line(b"data: " + json.dumps(event).encode() + b"\n")
    assert broken.error == "200 Unavailable: the replica was lost"


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"error": {"type": "T", "message": "m"}}', "429 T: m"),
        (b"<html>", "429 <html>"),
        (b"[]", "429 []"),
        (b"", "429 no body"),
        (b"x" * 1000, "429 " + "x" * 196),
    ],
)
def test_errors_are_one_line(body: bytes, told: str) -> None:
    assert error_text(429, body) == told


@pytest.mark.parametrize(
    ("slo", "met"),
    [
        (Slo(), True),
        (Slo(ttft_ms=101, tpot_ms=67), True),
        (Slo(ttft_ms=99), False),
        (Slo(tpot_ms=66), False),
    ],
)
def test_limits_of_a_good_answer(slo: Slo, met: bool) -> None:
    assert slo.met(answer()) is met
    assert Slo(tpot_ms=1).met(answer(("a",), second=0.0005))


def add(tally: Tally, step: int, workload: str, told: Answer, text: str = "t") -> None:
    cell = tally.cells[step, workload, told.lane]
    cell.add(told, Slo(ttft_ms=150), crossed=workload == "chat")
    cell.counts["arrived"] += told.tokens
    tally.texts[workload][text] += 1


def two_workers() -> Tally:
    """What two workers counted, over Locust's wire."""
    workers = [Tally(), Tally()]
    add(workers[0], 1, "code", answer())
    add(workers[1], 1, "code", answer(second=0.2), "other")
    add(workers[1], 1, "code", answer())
    refused = Answer(lane="plain", failure="429 full")
    add(workers[1], 1, "chat", refused)
    add(workers[0], 0, "chat", answer())
    whole = Tally()
    for worker in workers:
        whole.merge(Tally.unpack(msgpack.unpackb(msgpack.packb(worker.pack()))))
    return whole


def test_a_result_has_steps_classes_and_lanes() -> None:
    steps = [
        StepTimes(0, "warm-up", 1, None, True, 1.0),
        StepTimes(1, "2 users", 2, None, False, 4.0),
    ]
    result = fold(two_workers(), steps, Slo(ttft_ms=150), {"label": "routed"})
    assert (result["label"], result["requests"], result["failures"]) == ("routed", 3, 1)
    assert (result["repeated"], result["wrong"]) == (3, 1)
    assert result["texts"]["code"] == "t"
    rows = {(row["class"], row["lane"]): row for row in result["steps"][1]["rows"]}
    assert set(rows) == {
        ("all", "all"),
        ("all", "plain"),
        ("all", "speculative"),
        ("chat", "all"),
        ("chat", "plain"),
        ("code", "all"),
        ("code", "speculative"),
    }
    everything = rows["all", "all"]
    assert (everything["requests"], everything["failures"], everything["crossed"]) == (3, 1, 1)
    assert everything["tokens_per_s"] == 3.0
    assert everything["goodput_per_s"] == 0.5
    assert everything["good_share"] == 0.5
    assert everything["errors"] == {"429 full": 1}
    assert everything["reasons"] == {"faster": 3, "none": 1}
    assert rows["code", "speculative"]["ttft_ms"]["p50"] == pytest.approx(100, rel=0.01)
    assert rows["code", "speculative"]["ttft_ms"]["p95"] == pytest.approx(200, rel=0.01)
    assert rows["chat", "plain"]["ttft_ms"] is None
    assert rows["code", "all"]["acceptance"] == 0.25
    without = fold(two_workers(), steps, Slo(), {})
    assert without["steps"][1]["rows"][0]["goodput_per_s"] is None


@pytest.mark.parametrize("content", ["{", "[]", '{"kind": "other"}'])
def test_files_that_are_no_results(tmp_path: Path, content: str) -> None:
    file = tmp_path / "result.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=r"result\.json"):
        read_result(file)


def test_a_result_is_read_back(tmp_path: Path) -> None:
    result: dict[str, Any] = fold(two_workers(), [], Slo(), {})
    (tmp_path / "result.json").write_text(json.dumps(result))
    assert read_result(tmp_path / "result.json") == result
