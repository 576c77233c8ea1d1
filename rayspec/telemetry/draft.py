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
_DEVICE_GAUGES = {
    "rows_used": "Sequences with a KV cache.",
    "rows_waiting": "Sequences that wait for a KV cache.",
    "blocks_used": "Blocks of the KV cache that live sequences have.",
    "blocks_total": "Blocks of the KV cache.",
}
_DEVICE_COUNTERS = {
    "rounds_drafted": "Rounds that drafted anything.",
    "round_sum_us": "Device time of those rounds together, in microseconds.",
    "rounds_ahead": "Rounds that were launched before their frame was there.",
    "rows_not_ready": "Sequences that got no drafts in a step, mostly for their prefill.",
    "catch_ups": "Launches that wrote the KV of steps which sequences had sat out.",
    "prefill_pieces": "Pieces of prefill that were computed.",
    "prefill_failures": "Pieces of prefill that failed.",
}
# Metric: help, and the statistic of each value of the label `value`.
_DEVICE_TIMES = {
    "round_us": (
        "Device time of a round, in microseconds.",
        {"recent": "round_ewma_us", "p50": "round_p50_us", "p99": "round_p99_us"},
    ),
    "step_us": (
        "Device time of a round by draft token, in microseconds.",
        {"recent": "step_ewma_us", "p50": "step_p50_us"},
    ),
    "launch_us": (
        "Host time from seeing a frame to having started its round, in microseconds.",
        {"p50": "launch_p50_us", "p99": "launch_p99_us"},
    ),
}


class DraftCollector(Collector):
    """Exports `read()` as `rayspec_draft_server_*`, and of rounds `rayspec_draft_device_*`.

    What a draft on the host has no rounds for stays 0.
    """

    def __init__(self, read: Callable[[], DraftStats]) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        """Read the statistics once and yield their metrics."""
        stats = asdict(self._read())
        for key, text in _GAUGES.items():
            yield GaugeMetricFamily(f"rayspec_draft_server_{key}", text, stats[key])
        for key, text in _COUNTERS.items():
            yield CounterMetricFamily(f"rayspec_draft_server_{key}", text, stats[key])
        rounds = stats["on_device"]
        for key, text in _DEVICE_GAUGES.items():
            yield GaugeMetricFamily(f"rayspec_draft_device_{key}", text, rounds[key])
        for key, text in _DEVICE_COUNTERS.items():
            yield CounterMetricFamily(f"rayspec_draft_device_{key}", text, rounds[key])
        for name, (text, values) in _DEVICE_TIMES.items():
            times = GaugeMetricFamily(f"rayspec_draft_device_{name}", text, labels=["value"])
            for label, key in values.items():
                times.add_metric([label], rounds[key])
            yield times
