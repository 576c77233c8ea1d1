"""What a link counts while it runs."""

from __future__ import annotations

from collections import deque

__all__ = ["LinkCounters", "Timing"]

# Newest replies over which percentiles are taken.
_WINDOW = 512
_EWMA_WEIGHT = 0.1


class Timing:
    """Running mean, recent percentiles, and the sum of all of a duration."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=_WINDOW)
        self.ewma_us = 0.0
        self.count = 0
        self.total_us = 0.0

    def add(self, us: float) -> None:
        """Take up one measurement."""
        self.ewma_us += (us - self.ewma_us) * (_EWMA_WEIGHT if self._recent else 1.0)
        self._recent.append(us)
        self.count += 1
        self.total_us += us

    def percentile(self, q: float) -> float:
        """Return the q-quantile (0..1) of the recent measurements, 0 when there is none."""
        ordered = sorted(self._recent)
        return ordered[min(int(q * len(ordered)), len(ordered) - 1)] if ordered else 0.0


class LinkCounters:
    """Counts over all attachments of one target link."""

    def __init__(self) -> None:
        self.sent = 0
        self.received = 0
        self.misses = 0
        self.skipped = 0
        self.stale = 0
        self.resyncs = 0
        self.deaths = 0
        self.attaches = 0
        self.attach_failures = 0
        self.round_trip = Timing()
        self.draft = Timing()
