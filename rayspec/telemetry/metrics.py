"""The ingress's own metrics.

Label values are bounded: lanes and reasons by code, workload classes by `ClassLabels`. What is
about drafts has the lane as a label where more than one lane drafts; elsewhere it goes without
saying.
"""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Summary,
    generate_latest,
)

from rayspec.engine.messages import Generation
from rayspec.routing.types import Decision, Lane, Rule

__all__ = ["IngressMetrics"]

_RATIO_BUCKETS = (0.25, 0.5, 0.75, 0.9, 1, 1.1, 1.25, 1.5, 2, 4)
_TOKENS_PER_STEP_BUCKETS = (1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 12)
_LATENCY_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)

_NEVER = 2.0  # over every possible acceptance


class IngressMetrics:
    """Counters of one ingress replica, in a registry of their own; `drafting` lanes draft."""

    def __init__(self, drafting: Sequence[Lane] = (Lane.SPECULATIVE,)) -> None:
        self.registry = CollectorRegistry()
        self._several = len(drafting) > 1
        drafts = ["lane", "workload_class"] if self._several else ["workload_class"]
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
            drafts,
            registry=self.registry,
        )
        self.accepted = Counter(
            "rayspec_accepted_tokens",
            "Draft tokens accepted.",
            drafts,
            registry=self.registry,
        )
        self.refused_by_key = Counter(
            "rayspec_refused_keys",
            "Requests refused by their API key: unknown (`key`) or over a limit (`rate`).",
            ["cause"],
            registry=self.registry,
        )
        self.steps = Counter(
            "rayspec_verified_steps",
            "Steps that verified drafts.",
            drafts,
            registry=self.registry,
        )
        self.accepted_at = Counter(
            "rayspec_class_position_accepted_tokens",
            "Draft tokens accepted, by position in the draft; divided by the class's verified "
            "steps, the chance that a draft is accepted up to there.",
            [*drafts, "position"],
            registry=self.registry,
        )
        self.tokens_per_step = Histogram(
            "rayspec_tokens_per_step",
            "Tokens that a step with drafts gave, in the mean of a request.",
            drafts,
            buckets=_TOKENS_PER_STEP_BUCKETS,
            registry=self.registry,
        )
        self.draft_lengths = Counter(
            "rayspec_draft_lengths",
            "Routing decisions for the speculative lane, by the draft length that was chosen.",
            [*drafts, "k"],
            registry=self.registry,
        )
        self.unfinished = Counter(
            "rayspec_unfinished_calls",
            "Calls to a lane that ended before their answer: the lane was full or down, the time "
            "ran out, the client left, or an error.",
            ["lane", "cause"],
            registry=self.registry,
        )
        self.refusals = Counter(
            "rayspec_refusals",
            "Requests that no lane answered, by status.",
            ["status"],
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
            drafts,
            registry=self.registry,
        )
        self.believed = Gauge(
            "rayspec_believed_acceptance",
            "Acceptance at the first position that the class's last decision reckoned with.",
            drafts,
            registry=self.registry,
        )

    def decided(self, decision: Decision, label: str) -> None:
        """Count a decision; `label` is the class's bounded name."""
        self.decisions.labels(decision.lane, label, decision.rule).inc()
        if decision.lane.drafts:
            k = "default" if decision.k is None else str(decision.k)
            self.draft_lengths.labels(*self._drafts(decision.lane, label), k).inc()
        if decision.rule == Rule.EXPLORE:
            self.explorations.labels(decision.lane, label).inc()
        drafting = {} if decision.forecast is None else decision.forecast.drafting
        for lane, drafts in drafting.items():
            if drafts.best is not None:
                labels = self._drafts(lane, label)
                breakeven = drafts.breakeven
                self.breakeven.labels(*labels).set(_NEVER if breakeven is None else breakeven)
                self.believed.labels(*labels).set(drafts.acceptance)

    def generated(self, lane: Lane, label: str, generation: Generation) -> None:
        """Count what a finished request generated, and what drafts did for it."""
        self.output_tokens.labels(lane, label).inc(generation.output_tokens)
        if self._several and not lane.drafts:
            return
        labels = self._drafts(lane, label)
        self.drafted.labels(*labels).inc(generation.drafted)
        self.accepted.labels(*labels).inc(generation.accepted)
        self.steps.labels(*labels).inc(generation.steps)
        # Steps that accepted j tokens accepted those at positions 0 to j-1.
        reached = generation.steps
        for position, stopped in enumerate(generation.by_accepted[:-1]):
            reached -= stopped
            self.accepted_at.labels(*labels, str(position)).inc(reached)
        if generation.tokens_per_step is not None:
            self.tokens_per_step.labels(*labels).observe(generation.tokens_per_step)

    def measured(self, decision: Decision, label: str, seconds: float) -> None:
        """Compare a finished request with what was predicted of it."""
        prediction = decision.prediction
        if prediction is None or prediction.total_s <= 0:
            return
        self.predicted_latency.labels(decision.lane, label).observe(prediction.total_s)
        self.measured_latency.labels(decision.lane, label).observe(seconds)
        self.prediction_ratio.labels(decision.lane).observe(seconds / prediction.total_s)

    def _drafts(self, lane: Lane, label: str) -> tuple[str, ...]:
        """Return the labels of what is about drafts."""
        return (lane, label) if self._several else (label,)

    def text(self) -> str:
        """Return the Prometheus text format."""
        return generate_latest(self.registry).decode()
