from __future__ import annotations

import pytest

from load_tests.bench.rates import acceptance_for, expected_tokens, position_rates


@pytest.mark.parametrize(("mean", "k"), [(1.0, 5), (2.0, 5), (3.0, 5), (4.0, 5), (2.0, 1)])
def test_acceptance_yields_the_mean(mean: float, k: int) -> None:
    assert expected_tokens(acceptance_for(mean, k), k) == pytest.approx(mean)


def test_rates_are_those_of_prefixes() -> None:
    rates = position_rates(0.5, 3)
    assert rates == [0.5, 0.25, 0.125]
    # vLLM's meaning: the mean is one token and one more for every accepted prefix.
    assert 1 + sum(rates) == expected_tokens(0.5, 3)


@pytest.mark.parametrize("mean", [0.9, 6.1])
def test_impossible_means_are_refused(mean: float) -> None:
    with pytest.raises(ValueError, match="5 drafts a step yield 1 to 6 tokens"):
        acceptance_for(mean, 5)
