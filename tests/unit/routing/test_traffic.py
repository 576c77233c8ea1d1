from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayspec.routing.traffic import Lengths, TrafficTracker
from rayspec.routing.types import Lane, Outcome, RequestView
from tests.support.clock import Clock
from tests.support.properties import quick

ASK = RequestView("code", body_bytes=4000)
ANSWER = Outcome(
    "code", Lane.PLAIN, 0, 0, 0, 500, True, body_bytes=2000, prompt_tokens=1000, sequences=1
)


def test_an_unknown_class_has_usual_lengths() -> None:
    traffic = TrafficTracker(Clock(), priors={"code": Lengths(800, 300)})

    assert traffic.lengths("code", ASK) == Lengths(1000, 300)
    assert traffic.lengths("chat", replace(ASK, body_bytes=0)) == Lengths()


def test_lengths_follow_the_class() -> None:
    traffic = TrafficTracker(Clock())
    for _ in range(100):
        traffic.observe("code", replace(ANSWER, output_tokens=1000, sequences=2))

    lengths = traffic.lengths("code", ASK)

    assert lengths.prompt == pytest.approx(2000, rel=0.02)  # two bytes a token
    assert lengths.output == pytest.approx(500, rel=0.02)
    assert traffic.lengths("chat", ASK).output == 128


def test_a_request_s_own_limit_holds() -> None:
    assert TrafficTracker(Clock()).lengths("code", replace(ASK, max_tokens=5)).output == 5


def test_recent_requests_count_most() -> None:
    clock = Clock()
    traffic = TrafficTracker(clock, half_life_s=60.0)
    for _ in range(100):
        traffic.observe("code", ANSWER)
    clock.advance(600.0)
    for _ in range(100):
        traffic.observe("code", replace(ANSWER, output_tokens=20))

    assert traffic.lengths("code", ASK).output < 25


@pytest.mark.parametrize(
    "outcome", [replace(ANSWER, finished=False), replace(ANSWER, output_tokens=0)]
)
def test_what_generated_nothing_teaches_nothing(outcome: Outcome) -> None:
    traffic = TrafficTracker(Clock())
    traffic.observe("code", outcome)

    assert traffic.lengths("code", ASK) == Lengths(1000, 128)


def test_memory_of_made_up_classes_is_bounded() -> None:
    traffic = TrafficTracker(Clock())
    for number in range(3000):
        traffic.observe(f"made-up-{number}", ANSWER)

    assert len(traffic._sums) <= 1024


@quick
@given(st.integers(0, 10**7), st.none() | st.integers(1, 10**6), st.integers(0, 10**6))
def test_there_is_always_a_token_to_come(size: int, most: int | None, output: int) -> None:
    traffic = TrafficTracker(Clock())
    traffic.observe("code", replace(ANSWER, output_tokens=output, prompt_tokens=output))
    lengths = traffic.lengths("code", RequestView("code", body_bytes=size, max_tokens=most))

    assert lengths.prompt >= 1
    assert 1 <= lengths.output <= max(most or lengths.output, 1)
