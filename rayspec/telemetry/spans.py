"""rayspec's tracer, and how a trace crosses from one process to the next. Read at Ray 2.60.0."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.context import Context, attach, detach, get_current
from opentelemetry.trace import (
    INVALID_SPAN_ID,
    INVALID_TRACE_ID,
    NonRecordingSpan,
    Span,
    SpanContext,
    TraceFlags,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from ray.serve._private import tracing_utils as serve_tracing

import rayspec

__all__ = ["TRACER", "Carrier", "carrier_of", "entered", "ids", "parent"]

# A trace context as it crosses a process boundary: W3C `traceparent` and `tracestate`.
Carrier = tuple[tuple[str, str], ...]

# Looks its provider up when it is first used: a no-op until `export.start`, and without one.
TRACER = trace.get_tracer("rayspec", rayspec.__version__)

_W3C = TraceContextTextMapPropagator()


def parent(carrier: Mapping[str, str]) -> Context:
    """Return the context for a span that begins in this process.

    It is that of `carrier`, unless Serve has opened a span of its own in that trace: then that is
    nearer. A request that Serve chose not to sample is not sampled by us.
    """
    sent = trace.get_current_span(_W3C.extract(carrier, Context())).get_span_context()
    current = trace.get_current_span().get_span_context()
    if current.is_valid and (not sent.is_valid or sent.trace_id == current.trace_id):
        return get_current()
    if sent.is_valid:
        return _W3C.extract(carrier, Context())
    return trace.set_span_in_context(_unsampled(), Context()) if _serve_traces() else Context()


def carrier_of(span: Span) -> Carrier:
    """Return what makes another process continue the trace in `span`; empty without a trace."""
    headers: dict[str, str] = {}
    _W3C.inject(headers, trace.set_span_in_context(span, Context()))
    return tuple(headers.items())


@contextmanager
def entered(carrier: Mapping[str, str]) -> Iterator[None]:
    """Make the trace of `carrier` the current one, for what Serve does inside."""
    if not carrier:
        yield
        return
    token = attach(_W3C.extract(carrier, get_current()))
    try:
        yield
    finally:
        detach(token)


def ids() -> tuple[str, str] | None:
    """Return trace and span id of the current span in hexadecimal, None without one."""
    context = trace.get_current_span().get_span_context()
    if context.trace_id == INVALID_TRACE_ID or context.span_id == INVALID_SPAN_ID:
        return None
    return trace.format_trace_id(context.trace_id), trace.format_span_id(context.span_id)


def _unsampled() -> Span:
    flags = TraceFlags(TraceFlags.DEFAULT)
    trace_id, span_id = random.getrandbits(128) or 1, random.getrandbits(64) or 1
    return NonRecordingSpan(SpanContext(trace_id, span_id, is_remote=True, trace_flags=flags))


def _serve_traces() -> bool:
    return bool(serve_tracing.is_tracing_enabled())
