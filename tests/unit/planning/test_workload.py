"""The drawn steps are those of independent drafts with the calibrated acceptance."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayspec.errors import ConfigError
from rayspec.planning.workload import tokens_per_step
from rayspec.routing.cost_model import expected_tokens
from tests.support.planning import calibration, constant, trace, workload
from tests.support.properties import quick

rates = st.lists(st.floats(0, 1), max_size=6)


@quick
@given(rates, st.integers(0, 8))
def test_shares_sum_to_1_and_agree_with_the_cost_model(acceptance: list[float], k: int) -> None:
    shares = tokens_per_step(acceptance, k)
    assert len(shares) == k + 1
    assert shares.min() >= 0
    assert shares.sum() == pytest.approx(1)
    mean = float(shares @ np.arange(1, k + 2))
    assert mean == pytest.approx(expected_tokens(acceptance, k))


@pytest.mark.parametrize("k", [1, 3, 5])
def test_long_answers_take_tokens_by_expected_tokens_steps(k: int) -> None:
    acceptance = [0.8, 0.6, 0.5]
    measured = calibration(constant(1.0), acceptance={"code": acceptance})
    requests = trace([0.0] * 200, [2001] * 200)
    steps = np.array(workload(requests, measured).steps(k))
    # The last step of an answer may yield more than is left of it.
    assert steps.mean() == pytest.approx(2000 / expected_tokens(acceptance, k), rel=0.01)


@quick
@given(rates, st.integers(0, 6), st.lists(st.integers(1, 300), min_size=1, max_size=30))
def test_steps_are_possible(acceptance: list[float], k: int, outputs: list[int]) -> None:
    measured = calibration(constant(1.0), acceptance={"code": acceptance})
    found = workload(trace([0.0] * len(outputs), outputs), measured).steps(k)
    for steps, output in zip(found, outputs, strict=True):
        assert -(-(output - 1) // (k + 1)) <= steps <= output - 1
    if acceptance and min(acceptance) == 1:
        assert found == [-(-(output - 1) // (k + 1)) for output in outputs]


def test_draws_are_those_of_the_seed() -> None:
    measured = calibration(constant(1.0))
    requests = trace([0.0] * 50, [100] * 50)
    one, same, other = (workload(requests, measured, seed).steps(3) for seed in (1, 1, 2))
    assert one == same != other


def test_an_unknown_class_is_refused() -> None:
    measured = calibration(constant(1.0), acceptance={"code": [0.5]})
    with pytest.raises(ConfigError, match=r"poetry.*has code"):
        workload(trace([0.0], [5], classes=["poetry"]), measured)
