"""What the staircase concludes from what the policies reached."""

from __future__ import annotations

from pathlib import Path

import pytest

from load_tests.closed_loop import (
    POLICIES,
    Answer,
    asks,
    mean_latency,
    throughput,
)
from load_tests.prompts import WORKLOADS
from load_tests.staircase import Step, draw, order, report, summarize


def answer(total_s: float, tokens: int = 10, lane: str = "plain") -> Answer:
    return Answer("chat", lane, 5, tokens, 0.1, 0.01, total_s)


def step(routed: float, on: float, plain: float, users: int = 4) -> Step:
    rates = dict(zip(POLICIES, ([routed] * 3, [on] * 3, [plain] * 3), strict=True))
    waits = {name: [users * 10 / rate for rate in each] for name, each in rates.items()}
    return Step(users, rates, waits, 0.5)


def test_every_policy_has_every_place_once() -> None:
    orders = [order(number) for number in range(len(POLICIES))]
    assert [sorted(places) for places in zip(*orders, strict=True)] == [sorted(POLICIES)] * 3
    assert order(0) == order(3) == list(POLICIES)


def test_figures_of_all_rounds() -> None:
    rounds = {
        name: [([answer(1.0, lane=lane), answer(3.0)], seconds) for seconds in (2.0, 4.0, 100.0)]
        for name, lane in zip(POLICIES, ("speculative", "speculative", "plain"), strict=True)
    }
    found = summarize(2, rounds)
    assert found.tokens_per_s == {name: [10.0, 5.0, 0.2] for name in POLICIES}
    assert found.latency_s == {name: [2.0] * 3 for name in POLICIES}
    assert found.speculative_share == 0.5
    assert found.throughputs == found.latencies == [1.0] * 3


def test_rounds_are_compared_within_themselves() -> None:
    rates = {"routed": [9.0, 5.0, 3.0], "always on": [10.0, 5.0, 3.0], "always plain": [1.0] * 3}
    found = Step(2, rates, {name: [1.0] * 3 for name in POLICIES}, 0.5)
    assert found.throughputs == [0.9, 1.0, 1.0]
    assert found.worst == 1.0  # though two rounds out of three were slower for all


@pytest.mark.parametrize(
    ("routed", "on", "plain", "ratio"),
    [(10, 10, 5, 1.0), (12, 10, 11, 12 / 11), (9.0, 5, 10, 0.9)],
)
def test_routed_is_compared_with_the_better_one(
    routed: float, on: float, plain: float, ratio: float
) -> None:
    found = step(routed, on, plain)
    assert found.throughputs == pytest.approx([ratio] * 3)
    assert found.latencies == pytest.approx([ratio] * 3)
    assert found.worst == pytest.approx(ratio)


def test_slow_answers_are_no_better_than_few() -> None:
    even = step(10, 10, 10)
    slow = Step(4, even.tokens_per_s, {**even.latency_s, "routed": [5.0] * 3}, 0.5)
    assert slow.throughputs == [1.0] * 3
    assert slow.worst == pytest.approx(0.8)


def test_one_step_under_the_floor_fails(capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = step(10, 10, 5, users=1), step(9, 10, 5, users=8)
    assert report([good], 0.97) == 0
    assert "at least 1.000" in capsys.readouterr().out
    assert report([good, bad], 0.97) == 1
    assert "8 users: routed reaches 0.900, less than 0.97" in capsys.readouterr().out
    assert report([good, bad], 0.85) == 0


def test_the_picture(tmp_path: Path) -> None:
    path = tmp_path / "staircase.png"
    draw([step(10, 10, 5, users=1), step(9, 10, 5, users=8)], path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_requests_are_of_all_classes_and_repeatable() -> None:
    chosen = asks(24, seed=3, max_tokens=40)
    assert chosen == asks(24, seed=3, max_tokens=40) != asks(24, seed=4, max_tokens=40)
    assert {ask.workload for ask in chosen} == set(WORKLOADS)
    limits = [ask.max_tokens for ask in chosen]
    assert 20 <= min(limits) < max(limits) <= 60
    body = chosen[0].body("tiny")
    assert "metadata" not in body
    (named,) = asks(1, seed=3, max_tokens=40, named=True)
    assert named.body("tiny")["metadata"] == {"workload_class": named.workload}


def test_rates_of_answers() -> None:
    answers = [answer(1.0, tokens=30), answer(2.0, tokens=10)]
    assert throughput(answers, 4.0) == 10
    assert mean_latency(answers) == 1.5
