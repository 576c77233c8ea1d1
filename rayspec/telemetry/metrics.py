"""The ingress's own metrics.

Label values are bounded: lanes and reasons by code, workload classes by `AcceptanceTracker`'s cap.
"""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Summary,
    generate_latest,
)

from rayspec.routing.types import Decision, Rule

__all__ = ["IngressMetrics"]

_RATIO_BUCKETS = (0.25, 0.5, 0.75, 0.9, 1, 1.1, 1.25, 1.5, 2, 4)
_LATENCY_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)

_NEVER = 2.0  # over every possible acceptance


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
        self.refused_by_key = Counter(
            "rayspec_refused_keys",
            "Requests refused by their API key: unknown (`key`) or over a limit (`rate`).",
            ["cause"],
            registry=self.registry,
        )
        self.explorations = Counter(
            "rayspec_explorations",
            "Requests sent where they were not predicted to be fastest, to keep that measured.",
            ["lane", "workload_class"],
            registry=self.registry,
        )
        self.predicted_latency = Summary(
            "rayspec_predicted_latency_seconds",
            "Predicted time from a finished request's arrival to the end of its answer.",
            ["lane", "workload_class"],
            registry=self.registry,
        )
        self.measured_latency = Summary(
            "rayspec_measured_latency_seconds",
            "The same of the same requests, measured.",
            ["lane", "workload_class"],
            registry=self.registry,
        )
        self.prediction_ratio = Histogram(
            "rayspec_prediction_ratio",
            "Measured latency of a request, divided by the predicted one.",
            ["lane"],
            buckets=_RATIO_BUCKETS,
            registry=self.registry,
        )
        self.breakeven = Gauge(
            "rayspec_breakeven_acceptance",
            "Acceptance from which speculation paid at the load of the class's last request; 2 if "
            "none would have.",
            ["workload_class"],
            registry=self.registry,
        )
        self.believed = Gauge(
            "rayspec_believed_acceptance",
            "Acceptance at the first position that the class's last decision reckoned with.",
            ["workload_class"],
            registry=self.registry,
        )

    def decided(self, decision: Decision, label: str) -> None:
        """Count a decision; `label` is the class's bounded name."""
        self.decisions.labels(decision.lane, label, decision.rule).inc()
        if decision.rule == Rule.EXPLORE:
            self.explorations.labels(decision.lane, label).inc()
        forecast = decision.forecast
        if forecast is not None and forecast.drafting is not None:
            breakeven = forecast.breakeven
            self.breakeven.labels(label).set(_NEVER if breakeven is None else breakeven)
            self.believed.labels(label).set(forecast.acceptance)

    def measured(self, decision: Decision, label: str, seconds: float) -> None:
        """Compare a finished request with what was predicted of it."""
        prediction = decision.prediction
        if prediction is None or prediction.total_s <= 0:
            return
        self.predicted_latency.labels(decision.lane, label).observe(prediction.total_s)
        self.measured_latency.labels(decision.lane, label).observe(seconds)
        self.prediction_ratio.labels(decision.lane).observe(seconds / prediction.total_s)

    def text(self) -> str:
        """Return the Prometheus text format."""
        return generate_latest(self.registry).decode()
