"""Metrics of an engine that drafts itself, read at scrape time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from rayspec.telemetry.positions import by_position, draft_attached

__all__ = ["OwnDraftCollector"]


class OwnDraftCollector(Collector):
    """Exports what of a `method`'s drafts was verified and accepted: `read()`, by position."""

    def __init__(
        self, method: str, read: Callable[[], tuple[Sequence[int], Sequence[int]]]
    ) -> None:
        self._method = method
        self._read = read

    def collect(self) -> Iterable[Metric]:
        """Read the counts once and yield the metrics."""
        yield draft_attached(True)
        method = GaugeMetricFamily(
            "rayspec_draft_method",
            "1 for the method by which an engine drafts itself.",
            labels=["method"],
        )
        method.add_metric([self._method], 1.0)
        yield method
        yield from by_position(*self._read())
