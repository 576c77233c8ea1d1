from __future__ import annotations

from prometheus_client import CollectorRegistry

from rayspec.routing import Lane
from rayspec.routing.types import LaneView
from rayspec.telemetry.lanes import LaneCollector


def test_a_lane_is_exported_as_routing_sees_it() -> None:
    view = LaneView(
        Lane.SPECULATIVE, in_flight=3, running=1, waiting=1, replicas=1, attached=True, kv_usage=0.5
    )
    registry = CollectorRegistry()
    registry.register(
        LaneCollector(lambda: {Lane.SPECULATIVE: view, Lane.PLAIN: LaneView(Lane.PLAIN)})
    )

    def value(name: str, lane: str) -> float | None:
        return registry.get_sample_value(f"rayspec_lane_{name}", {"lane": lane})

    assert value("sequences", "speculative") == 3
    assert value("running", "speculative") == 1
    assert value("kv_usage", "speculative") == 0.5
    assert value("draft_attached", "speculative") == 1
    assert value("replicas", "plain") == value("draft_attached", "plain") == 0
