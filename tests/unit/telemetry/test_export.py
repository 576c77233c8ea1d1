"""Exporting from a process of its own: a tracer provider can be set once only."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rayspec.errors import ConfigError
from rayspec.telemetry import export
from tests.support.collector import Collector

ROOT = Path(__file__).resolve().parents[3]
ONE_SPAN = """
from opentelemetry import trace
from rayspec.telemetry import export, spans
export.start()
export.start()
span = spans.TRACER.start_span("one", spans.parent({}), attributes={"a": 1})
span.end()
print(span.is_recording(), type(trace.get_tracer_provider()).__name__)
print(spans.carrier_of(span) != ())
"""


def run(code: str, env: dict[str, str]) -> list[str]:
    inherited = {name: v for name, v in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**inherited, **env, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Overriding" not in done.stderr
    return done.stdout.split("\n")[:-1]


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_spans_reach_a_collector(tmp_path: Path, protocol: str) -> None:
    with Collector(tmp_path) as collector:
        run(ONE_SPAN, collector.environment(protocol))
        (span,) = collector.received(1)

    assert (span.name, span.attributes) == ("one", {"a": 1})
    assert span.resource["service.name"] == "rayspec"


def test_without_a_variable_nothing_is_traced() -> None:
    assert run(ONE_SPAN, {}) == ["False ProxyTracerProvider", "False"]


SERVES_SPANS = """
from opentelemetry import trace
from rayspec.telemetry import export
export.start()
tracer = trace.get_tracer("ray.serve._private.tracing_utils")
root = tracer.start_span("proxy", attributes={"request_route_path": "/v1/models"})
below = trace.set_span_in_context(root)
for name, context, attributes in (
    ("proxy of a probe", None, {"request_route_path": "/health"}),
    ("scrape", below, {"route": "/metrics", "call_method": "__call__"}),
    ("ingress", below, {"route": "/v1/models", "call_method": "__call__"}),
    ("lane", below, {"route": "/v1/models", "call_method": "handle"}),
    ("not sampled", None, {"route": "/v1/models", "call_method": "handle"}),
    ("poll", None, {"call_method": "snapshot"}),
    ("draft", below, {"call_method": "holds"}),
):
    tracer.start_span(name, context, attributes=attributes).end()
root.end()
"""


def test_of_serves_spans_those_of_requests_are_exported(tmp_path: Path) -> None:
    with Collector(tmp_path) as collector:
        run(SERVES_SPANS, collector.environment("grpc"))
        assert {span.name for span in collector.received(3)} == {"proxy", "ingress", "lane"}


def test_an_exporter_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "zipkin")
    with pytest.raises(ConfigError, match=r"^OTEL_TRACES_EXPORTER = .*zipkin.*console.*otlp"):
        export.check()
