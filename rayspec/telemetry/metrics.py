"""The ingress's own metrics.

Label values are bounded: lanes and reasons by code, workload classes by `AcceptanceTracker`'s cap.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

__all__ = ["IngressMetrics"]

_LATENCY_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class IngressMetrics:
    """Counters of one ingress replica, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "rayspec_requests",
            "Requests answered, by the lane that answered.",
            ["lane", "workload_class", "status"],
            registry=self.registry,
        )
        self.decisions = Counter(
            "rayspec_decisions",
            "Routing decisions, by reason.",
            ["lane", "workload_class", "reason"],
            registry=self.registry,
        )
        self.spills = Counter(
            "rayspec_spills",
            "Requests moved to the other lane because theirs was full or down.",
            ["from_lane", "cause"],
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "rayspec_in_flight", "Requests being answered.", ["lane"], registry=self.registry
        )
        self.first_chunk = Histogram(
            "rayspec_time_to_first_chunk_seconds",
            "From the request's arrival to the first chunk of its answer.",
            ["lane"],
            buckets=_LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self.duration = Histogram(
            "rayspec_request_duration_seconds",
            "From the request's arrival to the end of its answer.",
            ["lane"],
            buckets=_LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self.output_tokens = Counter(
            "rayspec_output_tokens",
            "Tokens generated.",
            ["lane", "workload_class"],
            registry=self.registry,
        )
        self.drafted = Counter(
            "rayspec_drafted_tokens",
            "Draft tokens verified.",
            ["workload_class"],
            registry=self.registry,
        )
        self.accepted = Counter(
            "rayspec_accepted_tokens",
            "Draft tokens accepted.",
            ["workload_class"],
            registry=self.registry,
        )

    def text(self) -> str:
        """Return the Prometheus text format."""
        return generate_latest(self.registry).decode()
