from __future__ import annotations

import pytest

from rayspec.link.counters import Timing


def test_no_measurement_is_zero() -> None:
    assert (Timing().ewma_us, Timing().percentile(0.99)) == (0.0, 0.0)


def test_mean_starts_at_the_first_and_follows() -> None:
    timing = Timing()
    timing.add(100.0)
    assert timing.ewma_us == 100.0
    timing.add(200.0)
    assert timing.ewma_us == pytest.approx(110.0)


def test_percentiles_are_of_the_newest() -> None:
    timing = Timing()
    for us in range(2000):
        timing.add(float(us))
    assert timing.percentile(0.0) == 1488.0
    assert timing.percentile(0.5) == 1744.0
    assert timing.percentile(1.0) == 1999.0
