from __future__ import annotations

import logging

import pytest

from rayspec.routing.cost_model import Prediction
from rayspec.routing.types import Decision, Lane, Rule
from rayspec.telemetry.decisions import DecisionLog
from rayspec.telemetry.metrics import IngressMetrics
from tests.support.clock import Clock
from tests.support.one_draft import predicted

S, P = Lane.SPECULATIVE, Lane.PLAIN
FORECAST = predicted(
    {S: Prediction(0.1, 0.01, 0.812, 3), P: Prediction(0.1, 0.01, 0.955, 0)},
    Prediction(0.1, 0.01, 0.812, 3),
    acceptance=0.71,
    breakeven=0.44,
)
PREDICTED = Decision(S, "chat", "faster speculative", 3, FORECAST)


def loads() -> dict[Lane, int]:
    return {S: 2, P: 5}


def lines(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno == level]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> tuple[DecisionLog, Clock]:
    caplog.set_level(logging.DEBUG, "rayspec.telemetry.decisions")
    clock = Clock()
    return DecisionLog(clock), clock


def test_a_line_has_everything_that_decided(
    log: tuple[DecisionLog, Clock], caplog: pytest.LogCaptureFixture
) -> None:
    log[0].decided(PREDICTED, "chat", loads)

    assert lines(caplog, logging.INFO) == [
        "decision class=chat lane=speculative rule=faster k=3 load=speculative:2,plain:5 "
        "predicted=speculative=812ms,plain=955ms,k=3 acceptance=measured:0.71 breakeven=0.44"
    ]


def test_without_a_forecast_the_line_says_so(
    log: tuple[DecisionLog, Clock], caplog: pytest.LogCaptureFixture
) -> None:
    log[0].decided(Decision(P, "chat", f"{Rule.OVERRIDE} speculation=off"), "chat", loads)

    (line,) = lines(caplog, logging.INFO)
    assert "k=default" in line
    assert line.endswith("predicted=none acceptance=none breakeven=none")


def test_one_in_a_while_is_for_everyone(
    log: tuple[DecisionLog, Clock], caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(6):
        log[0].decided(PREDICTED, "chat", loads)
        log[1].advance(10.0)

    assert len(lines(caplog, logging.INFO)) == 2
    assert len(lines(caplog, logging.DEBUG)) == 4


def test_loads_are_not_asked_for_a_line_that_nobody_reads(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "rayspec.telemetry.decisions")
    asked = []

    def count() -> dict[Lane, int]:
        asked.append(1)
        return loads()

    log = DecisionLog(Clock())
    for _ in range(5):
        log.decided(PREDICTED, "chat", count)

    assert len(asked) == 1


def test_metrics_of_a_decision_and_of_its_end() -> None:
    metrics = IngressMetrics()
    explored = Decision(P, "chat", "explore the plain lane", forecast=FORECAST)
    metrics.decided(PREDICTED, "chat")
    metrics.decided(explored, "chat")
    metrics.measured(PREDICTED, "chat", 1.624)
    metrics.measured(Decision(P, "chat", "override"), "chat", 9.0)

    value = metrics.registry.get_sample_value
    assert value("rayspec_explorations_total", {"lane": "plain", "workload_class": "chat"}) == 1
    assert value("rayspec_breakeven_acceptance", {"workload_class": "chat"}) == 0.44
    assert value("rayspec_believed_acceptance", {"workload_class": "chat"}) == 0.71
    labels = {"lane": "speculative", "workload_class": "chat"}
    assert value("rayspec_predicted_latency_seconds_sum", labels) == 0.812
    assert value("rayspec_measured_latency_seconds_sum", labels) == 1.624
    assert value("rayspec_prediction_ratio_sum", {"lane": "speculative"}) == 2.0
    assert value("rayspec_prediction_ratio_count", {"lane": "plain"}) is None


def test_a_breakeven_that_no_draft_reaches_is_over_every_acceptance() -> None:
    metrics = IngressMetrics()
    never = predicted(FORECAST.lanes, FORECAST.drafting[S].best, 0.5, breakeven=None)
    metrics.decided(Decision(P, "chat", "faster plain", forecast=never), "chat")

    value = metrics.registry.get_sample_value
    assert value("rayspec_breakeven_acceptance", {"workload_class": "chat"}) == 2.0
