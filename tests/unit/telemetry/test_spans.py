from __future__ import annotations

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from ray.serve._private import tracing_utils

from rayspec.telemetry import spans

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CLIENT = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
UNSAMPLED = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-00"}


def trace_of(carrier: dict[str, str]) -> trace.SpanContext:
    return trace.get_current_span(spans.parent(carrier)).get_span_context()


def test_a_span_begins_under_the_client(exported: InMemorySpanExporter) -> None:
    span = spans.TRACER.start_span("s", spans.parent(CLIENT))
    assert dict(spans.carrier_of(span))["traceparent"].startswith(f"00-{TRACE}-")
    span.end()
    (ended,) = exported.get_finished_spans()
    assert ended.parent is not None
    assert trace.format_span_id(ended.parent.span_id) == "00f067aa0ba902b7"


def test_a_client_that_samples_not_is_not_sampled(exported: InMemorySpanExporter) -> None:
    spans.TRACER.start_span("s", spans.parent(UNSAMPLED)).end()
    assert exported.get_finished_spans() == ()


def test_a_span_of_serve_in_the_same_trace_is_nearer(exported: InMemorySpanExporter) -> None:
    serves = spans.TRACER.start_span("serve", spans.parent(CLIENT))
    with trace.use_span(serves):
        assert trace_of(CLIENT) == serves.get_span_context()
        assert trace_of({}) == serves.get_span_context()
        other = {"traceparent": f"00-{'1' * 32}-00f067aa0ba902b7-01"}
        assert trace.format_trace_id(trace_of(other).trace_id) == "1" * 32


def test_what_serve_does_not_sample_is_not_sampled(
    exported: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not trace_of({}).is_valid
    monkeypatch.setattr(tracing_utils, "_tracing_enabled", True)
    assert trace_of({}).is_valid
    spans.TRACER.start_span("s", spans.parent({})).end()
    assert exported.get_finished_spans() == ()


def test_a_carrier_is_the_current_trace_inside() -> None:
    assert spans.ids() is None
    with spans.entered(CLIENT):
        assert spans.ids() == (TRACE, "00f067aa0ba902b7")
    with spans.entered({}):
        assert spans.ids() is None


def test_a_wrong_header_is_no_trace() -> None:
    assert not trace_of({"traceparent": "nonsense"}).is_valid
