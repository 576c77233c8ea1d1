"""Acceptance and latency of classes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayspec.audit.client import Answer
from rayspec.audit.prompts import CHAT, Prompt
from rayspec.audit.speed import ALL, measure, paired_ratio
from rayspec.audit.turns import Pair
from rayspec.routing.types import Lane


def answer(lane: Lane, e2e_s: float, *, tokens: int = 11, accepted: int = 0) -> Answer:
    drafted = 2 * accepted
    return Answer(lane, "code", (1,), (5,) * tokens, "stop", 0.1, e2e_s, drafted, accepted)


def pair(number: int, plain: list[float], ours: list[float], accepted: int = 5) -> Pair:
    return Pair(
        Prompt(number, CHAT, {}),
        tuple(answer(Lane.PLAIN, s) for s in plain),
        tuple(answer(Lane.SPECULATIVE, s, accepted=accepted) for s in ours),
    )


def test_class_and_total() -> None:
    pairs = [pair(1, [1.1, 1.3], [0.6, 0.6]), pair(2, [2.1, 2.1], [1.1, 9.1])]
    code, everything = measure(pairs)
    assert (code.workload_class, everything.workload_class) == ("code", ALL)
    assert (code.prompts, code.tokens, code.drafted, code.accepted) == (2, 44, 40, 20)
    assert code.acceptance == 0.5
    assert code.tokens_per_step == pytest.approx(44 / 24)
    assert code.plain["e2e_ms"] == pytest.approx(1700)
    assert code.plain["ttft_ms"] == pytest.approx(100)
    assert code.speculative["tpot_ms"] == pytest.approx((50 + 100) / 2)
    ratio = code.faster["e2e_ms"]
    assert ratio is not None
    assert ratio.value == pytest.approx(((1.2 / 0.6) * (2.1 / 5.1)) ** 0.5)
    assert ratio.low is None  # two prompts show no spread


def test_nothing_drafted_has_no_acceptance() -> None:
    (code, _) = measure([pair(1, [1.0], [1.0], accepted=0)])
    assert code.acceptance is None
    assert code.tokens_per_step == 1.0


def test_single_tokens_have_no_time_between() -> None:
    short = Pair(
        Prompt(1, CHAT, {}),
        (answer(Lane.PLAIN, 0.1, tokens=1),),
        (answer(Lane.SPECULATIVE, 0.1, tokens=1),),
    )
    (code, _) = measure([short])
    assert code.plain["tpot_ms"] is None
    assert code.faster["tpot_ms"] is None


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)), min_size=3, max_size=20))
def test_interval_holds_the_ratio_and_turns_with_it(pairs: list[tuple[float, float]]) -> None:
    ratio, turned = paired_ratio(pairs), paired_ratio([(b, a) for a, b in pairs])
    assert ratio is not None
    assert turned is not None
    assert ratio.low is not None
    assert ratio.high is not None
    assert ratio.low <= ratio.value * (1 + 1e-9)
    assert ratio.value <= ratio.high * (1 + 1e-9)
    assert ratio.value * turned.value == pytest.approx(1)


def test_interval_covers_what_is_true() -> None:
    covered = 0
    for seed in range(100):
        noise = np.random.default_rng(seed).lognormal(0, 0.3, 20)
        ratio = paired_ratio([(1.5 * n, 1.0) for n in noise])
        assert ratio is not None
        assert ratio.low is not None
        assert ratio.high is not None
        covered += ratio.low <= 1.5 <= ratio.high
    assert covered >= 85
