"""Generated traffic has the rate, the burstiness, the mix and the lengths that were asked for."""

from __future__ import annotations

import numpy as np
import pytest

from rayspec.errors import ConfigError
from rayspec.planning.calibration import ClassProfile
from rayspec.planning.traces import ClassMix, closed_loop, open_loop, parse_mix

PROFILES = {
    "code": ClassProfile(acceptance=[0.8], prompt_tokens=600, output_tokens=200),
    "chat": ClassProfile(acceptance=[0.5], prompt_tokens=100, output_tokens=50),
}


@pytest.mark.parametrize("cv", [0.0, 0.5, 1.0, 3.0])
def test_arrivals_have_rate_and_variation(cv: float) -> None:
    trace = open_loop(ClassMix({"code": 1}, PROFILES), 40_000, rate=5.0, cv=cv, seed=1)
    gaps = np.diff(trace.arrivals)
    assert trace.arrivals[0] == 0
    assert trace.rate == pytest.approx(5.0, rel=0.06)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.08, abs=1e-6)


@pytest.mark.parametrize("cv", [0.0, 0.5, 1.0])
def test_mix_and_lengths(cv: float) -> None:
    mix = ClassMix({"code": 3, "chat": 1}, PROFILES, cv)
    trace = closed_loop(mix, 40_000, users=4, think_s=1.0, seed=1)
    code = trace.class_of == trace.classes.index("code")
    assert code.mean() == pytest.approx(0.75, abs=0.01)
    prompts = trace.prompt_tokens[code]
    assert prompts.mean() == pytest.approx(600, rel=0.03)
    assert prompts.std() / prompts.mean() == pytest.approx(cv, rel=0.05, abs=1e-6)
    assert trace.output_tokens[~code].mean() == pytest.approx(50, rel=0.03)
    assert trace.output_tokens.min() >= 1


def test_a_seed_says_it_all() -> None:
    mix = ClassMix({"code": 1, "chat": 1}, PROFILES)
    one, same, other = (open_loop(mix, 100, 1.0, 1.0, seed) for seed in (1, 1, 2))
    assert np.array_equal(one.arrivals, same.arrivals)
    assert np.array_equal(one.output_tokens, same.output_tokens)
    assert not np.array_equal(one.arrivals, other.arrivals)


def test_stretching_keeps_the_requests() -> None:
    trace = open_loop(ClassMix({"code": 1}, PROFILES), 100, 1.0, 1.0, 0)
    faster = trace.at_rate(4.0)
    assert faster.rate == pytest.approx(4.0)
    assert np.array_equal(faster.output_tokens, trace.output_tokens)
    assert trace.with_users(3, 0.5).users == 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {"code": 1.0, "chat": 1.0}),
        ("chat", {"chat": 1.0}),
        ("code=0.3, chat=0.7", {"code": 0.3, "chat": 0.7}),
        ("code=1,chat=0", {"code": 1.0}),
    ],
)
def test_parse_mix(text: str, expected: dict[str, float]) -> None:
    assert parse_mix(text, list(PROFILES)) == expected


@pytest.mark.parametrize("text", ["code=x", "code=-1", "code=nan", "code=inf", "code=0"])
def test_a_wrong_mix_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="mix"):
        parse_mix(text, list(PROFILES))
