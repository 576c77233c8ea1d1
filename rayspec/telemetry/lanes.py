"""Metrics of the lanes as an ingress sees them, read at scrape time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from rayspec.routing.types import Lane, LaneView

__all__ = ["LaneCollector"]

_GAUGES: dict[str, tuple[str, Callable[[LaneView], float]]] = {
    "sequences": (
        "Sequences in a lane, as routing counts them.",
        lambda view: view.concurrency,
    ),
    "running": ("Sequences that its engines run.", lambda view: view.running),
    "waiting": ("Sequences that wait in its engines.", lambda view: view.waiting),
    "kv_usage": ("Used share of the KV cache, of its fullest engine.", lambda view: view.kv_usage),
    "backlog_tokens": ("Prompt tokens that are still to be prefilled.", lambda view: view.backlog),
    "replicas": ("Engines that have reported lately.", lambda view: view.replicas),
    "draft_attached": (
        "1 while a draft answers one of its engines.",
        lambda view: bool(view.attached),
    ),
}


class LaneCollector(Collector):
    """Exports `read()`, the router's view of every lane, as `rayspec_lane_*`."""

    def __init__(self, read: Callable[[], Mapping[Lane, LaneView]]) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        """Read the views once and yield their metrics."""
        views = self._read()
        for name, (text, of) in _GAUGES.items():
            family = GaugeMetricFamily(f"rayspec_lane_{name}", text, labels=["lane"])
            for lane, view in views.items():
                family.add_metric([str(lane)], float(of(view)))
            yield family
