from __future__ import annotations

import pytest

from load_tests.bench.steps import SETTLE, Step, summarise


def steady(count: int, tokens: int = 6, seconds: float = 0.01) -> list[Step]:
    return [Step(decoding=2, prefilling=0, tokens=tokens, seconds=seconds)] * count


def test_only_the_steady_part_counts() -> None:
    steps = [
        Step(decoding=0, prefilling=1, tokens=1, seconds=0.0),
        Step(decoding=1, prefilling=1, tokens=4, seconds=9.0),
        *steady(SETTLE, seconds=5.0),  # still overlapping with prefill
        *steady(10),
        *steady(1, tokens=1, seconds=7.0),  # a request ends in it
        Step(decoding=1, prefilling=0, tokens=3, seconds=8.0),
    ]
    sample = summarise(steps, 2, [0.004, 0.006])
    assert sample.steps == 10
    assert sample.step_ms == pytest.approx(10.0)
    assert sample.tokens_per_step == pytest.approx(3.0)
    assert sample.ms_per_token == pytest.approx(10.0 / 3)
    assert sample.tpot_ms == pytest.approx(5.0)
    assert sample.rows == 1 + 2 * (SETTLE + 10 + 1) + 1


def test_a_batch_that_never_came_together_is_an_error() -> None:
    with pytest.raises(ValueError, match="3 requests decoded together in 0 steps only"):
        summarise(steady(50), 3, [0.01])
