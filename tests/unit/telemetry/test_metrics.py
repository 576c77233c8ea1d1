from __future__ import annotations

from rayspec.engine.messages import Generation
from rayspec.routing import Decision, Forecast, Lane
from rayspec.routing.cost_model import Prediction
from rayspec.routing.types import Drafting
from rayspec.telemetry.metrics import IngressMetrics


def test_acceptance_is_counted_by_class_and_position() -> None:
    metrics = IngressMetrics()
    # 6 steps with up to 3 drafts: 2 accepted none, 1 one, 0 two, 3 all.
    generation = Generation(5, 16, steps=6, drafted=18, accepted=10, by_accepted=(2, 1, 0, 3))
    metrics.generated(Lane.SPECULATIVE, "chat", generation)

    value = metrics.registry.get_sample_value
    at = [
        value(
            "rayspec_class_position_accepted_tokens_total",
            {"workload_class": "chat", "position": str(position)},
        )
        for position in range(3)
    ]
    assert at == [4, 3, 3]
    assert sum(each or 0 for each in at) == generation.accepted
    assert value("rayspec_verified_steps_total", {"workload_class": "chat"}) == 6
    assert value("rayspec_tokens_per_step_sum", {"workload_class": "chat"}) == 1 + 10 / 6


def test_without_drafts_there_are_no_steps_to_tell_of() -> None:
    metrics = IngressMetrics()
    metrics.generated(Lane.PLAIN, "chat", Generation(5, 16))
    value = metrics.registry.get_sample_value
    assert value("rayspec_tokens_per_step_count", {"workload_class": "chat"}) is None
    assert value("rayspec_output_tokens_total", {"lane": "plain", "workload_class": "chat"}) == 16


def test_draft_lengths_are_those_of_the_speculative_lane() -> None:
    metrics = IngressMetrics()
    for decision in (
        Decision(Lane.SPECULATIVE, "chat", "default x", 4),
        Decision(Lane.SPECULATIVE, "chat", "default x"),
        Decision(Lane.PLAIN, "chat", "default x"),
    ):
        metrics.decided(decision, "chat")
    lengths = metrics.draft_lengths.collect()
    counted = {s.labels["k"]: s.value for f in lengths for s in f.samples if "_total" in s.name}
    assert counted == {"4": 1, "default": 1}


def test_where_two_lanes_draft_each_has_its_own_figures() -> None:
    metrics = IngressMetrics((Lane.SPECULATIVE, Lane.ALTERNATIVE))
    generation = Generation(5, 16, steps=6, drafted=18, accepted=10, by_accepted=(2, 1, 0, 3))
    metrics.generated(Lane.ALTERNATIVE, "code", generation)
    metrics.generated(Lane.PLAIN, "code", Generation(5, 16))
    prediction = Prediction(0.1, 0.01, 1.0, 4)
    drafting = {
        Lane.SPECULATIVE: Drafting(prediction, (0.3,), False, 0.5),
        Lane.ALTERNATIVE: Drafting(prediction, (0.9,), False, None),
    }
    forecast = Forecast(dict.fromkeys(drafting, prediction), drafting)
    metrics.decided(Decision(Lane.ALTERNATIVE, "code", "faster x", 4, forecast), "code")

    def value(name: str, lane: str, **labels: str) -> float | None:
        labels = {"lane": lane, "workload_class": "code", **labels}
        return metrics.registry.get_sample_value(name, labels)

    assert value("rayspec_drafted_tokens_total", "alternative") == 18
    assert value("rayspec_class_position_accepted_tokens_total", "alternative", position="2") == 3
    assert value("rayspec_drafted_tokens_total", "plain") is None
    assert value("rayspec_draft_lengths_total", "alternative", k="4") == 1
    assert value("rayspec_believed_acceptance", "speculative") == 0.3
    assert value("rayspec_believed_acceptance", "alternative") == 0.9
    assert value("rayspec_breakeven_acceptance", "alternative") == 2.0
