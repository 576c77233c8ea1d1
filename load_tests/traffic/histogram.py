"""A histogram that adds up over processes and still knows percentiles within 1 %."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

__all__ = ["Histogram"]

# Buckets grow by 1 %, so their middle is at most 0.5 % away. Locust's own statistics round to
# whole milliseconds below 100, which is a third of a GPU's time per token.
_BASE = math.log(1.01)
_LEAST = 1e-3


class Histogram:
    """Positive values in logarithmic buckets; the mean is exact."""

    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0
        self.greatest = 0.0
        self._buckets: Counter[int] = Counter()

    def add(self, value: float) -> None:
        """Count one value."""
        self.count += 1
        self.total += value
        self.greatest = max(self.greatest, value)
        self._buckets[math.floor(math.log(max(value, _LEAST)) / _BASE)] += 1

    def merge(self, other: Histogram) -> None:
        """Count what `other` counted."""
        self.count += other.count
        self.total += other.total
        self.greatest = max(self.greatest, other.greatest)
        self._buckets.update(other._buckets)

    def percentile(self, share: float) -> float | None:
        """Return the value that `share` of all values do not exceed; None without any."""
        rank = math.ceil(share * self.count)
        for bucket in sorted(self._buckets):
            rank -= self._buckets[bucket]
            if rank <= 0:
                return min(math.exp((bucket + 0.5) * _BASE), self.greatest)
        return None

    def summary(self) -> dict[str, float | int] | None:
        """Return what a result holds of it; None without any value."""
        if not self.count:
            return None
        named = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
        figures = {name: self.percentile(share) or 0.0 for name, share in named.items()}
        return {
            "count": self.count,
            "mean": round(self.total / self.count, 4),
            **{name: round(figure, 4) for name, figure in figures.items()},
            "max": round(self.greatest, 4),
        }

    def pack(self) -> list[Any]:
        """Return it in values that Locust's messages carry."""
        return [self.total, self.greatest, {str(key): n for key, n in self._buckets.items()}]

    @classmethod
    def unpack(cls, packed: list[Any]) -> Histogram:
        """Return what `pack` was asked of."""
        histogram = cls()
        histogram.total, histogram.greatest = float(packed[0]), float(packed[1])
        buckets: Mapping[str, int] = packed[2]
        histogram._buckets = Counter({int(key): n for key, n in buckets.items()})
        histogram.count = histogram._buckets.total()
        return histogram
