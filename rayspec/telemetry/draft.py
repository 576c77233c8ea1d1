"""Metrics of a draft server, read at scrape time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from rayspec.draft.spec import DraftStats

__all__ = ["DraftCollector"]

_GAUGES = {
    "links": "Targets attached.",
    "sequences": "Sequences followed.",
    "draft_ewma_us": "Recent time of a drafting round, in microseconds.",
    "draft_p50_us": "Median time of a drafting round, in microseconds.",
    "draft_p99_us": "99th percentile of the time of a drafting round, in microseconds.",
}
_COUNTERS = {
    "admitted": "Tickets given to targets.",
    "refused": "Targets that did not fit.",
    "frames": "Steps that targets told.",
    "answered": "Steps that were answered with drafts.",
    "rounds": "Drafting rounds, each for all targets that waited.",
    "drafted_tokens": "Tokens drafted.",
    "nacks": "Sequences the draft asked to be told again.",
    "mismatches": "Checksums that differed.",
    "errors": "Rounds that failed.",
}


class DraftCollector(Collector):
    """Exports `read()` as `rayspec_draft_server_*`."""

    def __init__(self, read: Callable[[], DraftStats]) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        """Read the statistics once and yield their metrics."""
        stats = asdict(self._read())
        for key, text in _GAUGES.items():
            yield GaugeMetricFamily(f"rayspec_draft_server_{key}", text, stats[key])
        for key, text in _COUNTERS.items():
            yield CounterMetricFamily(f"rayspec_draft_server_{key}", text, stats[key])
