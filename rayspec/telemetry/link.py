"""Metrics of a target's link to its draft, read from the worker's status at scrape time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from rayspec.telemetry.positions import by_position, draft_attached

__all__ = ["LinkCollector"]

_GAUGES = {
    "epoch": "Number of the newest attachment.",
    "lagging": "1 while the draft is behind and few steps wait for it.",
    "rtt_ewma_us": "Recent time that steps waited for drafts; over NCCL the mean, in microseconds.",
    "rtt_p50_us": "Median round trip of a step to the draft and back, in microseconds; gloo only.",
    "rtt_p99_us": "99th percentile of the round trip, in microseconds; gloo only.",
    "draft_ewma_us": "Recent time that the draft took for a step, in microseconds.",
}
_COUNTERS = {
    "sent": "Steps told to the draft.",
    "received": "Steps answered by the draft in time.",
    "misses": "Steps that waited their whole deadline in vain.",
    "skipped": "Steps that did not wait, because the draft was behind.",
    "stale": "Replies dropped because their step, epoch or slot was gone.",
    "resyncs": "Times the draft asked to be told a sequence again.",
    "deaths": "Times the draft was lost.",
    "attaches": "Times a draft was attached.",
    "attach_failures": "Attempts to attach that failed.",
}


class LinkCollector(Collector):
    """Exports `read()`, the answer of `rayspec_status`, as `rayspec_link_*` and per position."""

    def __init__(self, read: Callable[[], Mapping[str, Any]]) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        """Read the status once and yield its metrics."""
        status = self._read()
        yield draft_attached(bool(status.get("attached")))
        shards = GaugeMetricFamily(
            "rayspec_draft_shard_attached", "1 while this draft answers.", labels=["shard"]
        )
        for shard, facts in enumerate(status.get("shards", ())):
            shards.add_metric([str(shard)], float(bool(facts["attached"])))
        yield shards
        link = status.get("link") or {}
        for key, text in _GAUGES.items():
            yield GaugeMetricFamily(f"rayspec_link_{key}", text, float(link.get(key, 0)))
        for key, text in _COUNTERS.items():
            yield CounterMetricFamily(f"rayspec_link_{key}", text, float(link.get(key, 0)))
        yield from by_position(
            status.get("drafted_per_pos", ()), status.get("accepted_per_pos", ())
        )
