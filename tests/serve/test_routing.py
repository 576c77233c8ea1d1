"""Decisions of the running application: what they are made of is measured, and told."""

from __future__ import annotations

import re

import httpx
import openai
import pytest

from tests.support.application import BASE_URL, Application

pytestmark = pytest.mark.e2e

URL = f"{BASE_URL}/v1/chat/completions"
PREDICTED = re.compile(r"speculative=(\d+)ms plain=(\d+)ms k=([0124])")


def ask(text: str, tokens: int, speculation: str = "auto") -> httpx.Response:
    body = {
        "model": "smollm2",
        "messages": [{"role": "user", "content": text}],
        "max_tokens": tokens,
        "temperature": 0,
        "rayspec": {"speculation": speculation},
    }
    return httpx.post(URL, json=body, timeout=120).raise_for_status()


@pytest.fixture(scope="module", autouse=True)
def measured(app: Application) -> None:
    """Let both engines learn how long their steps take."""
    for speculation in ("on", "off", "on", "off"):
        ask("Tell me a story about a river.", 48, speculation)


def test_both_lanes_are_predicted_and_the_faster_one_is_taken() -> None:
    answer = ask("Which day follows Monday, and which one comes before it?", 16)
    match = PREDICTED.fullmatch(answer.headers["x-rayspec-predicted"])
    assert match is not None
    speculative, plain = int(match[1]), int(match[2])
    assert speculative > 0
    assert plain > 0
    rule, _, detail = answer.headers["x-rayspec-reason"].partition(" ")
    # The lanes share this machine: where both together are no quicker, all take one.
    assert rule in {"together", "faster", "steady", "explore"}
    assert "tokens/s of all" in detail or "acceptance" in detail
    if rule == "faster":
        faster = "speculative" if speculative < plain else "plain"
        assert answer.headers["x-rayspec-lane"] == faster


def test_longer_answers_are_predicted_to_take_longer() -> None:
    short, long = (
        PREDICTED.fullmatch(ask("Count the sheep.", tokens).headers["x-rayspec-predicted"])
        for tokens in (2, 64)
    )
    assert short is not None
    assert long is not None
    assert int(long[2]) > 2 * int(short[2])


def test_predictions_are_of_the_right_size(app: Application) -> None:
    for number in range(6):
        ask(f"Write {number + 3} sentences about the sea.", 64)
    predicted = app.metric("rayspec_predicted_latency_seconds_sum")
    actual = app.metric("rayspec_measured_latency_seconds_sum")
    assert app.metric("rayspec_prediction_ratio_count") >= 6
    assert 1 / 3 < actual / predicted < 3


def test_a_stream_says_the_same(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="smollm2",
        messages=[{"role": "user", "content": "Say hello."}],
        max_tokens=16,
        stream=True,
    )
    assert PREDICTED.fullmatch(raw.headers["x-rayspec-predicted"])
    text = "".join(chunk.choices[0].delta.content or "" for chunk in raw.parse())
    assert text


def test_metrics_tell_what_speculation_needs(app: Application) -> None:
    names = {sample.name for sample in app.metrics()}
    assert {
        "rayspec_breakeven_acceptance",
        "rayspec_believed_acceptance",
        "rayspec_measured_latency_seconds_count",
    } <= names
