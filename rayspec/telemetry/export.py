"""Sends spans where the standard `OTEL_*` variables say, in every process of the application.

Serve, where it traces, makes the process's tracer provider and asks `span_processors` for what to
do with spans; elsewhere `start` makes one. Without an exporter there is none, and spans are no-ops.
"""

from __future__ import annotations

import os
from importlib.metadata import entry_points

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from rayspec.errors import ConfigError
from rayspec.telemetry import environment

__all__ = ["check", "span_processors", "start"]

_GROUP = "opentelemetry_traces_exporter"
# Serve's tracer, and the methods of our deployments that requests go through. Read at Ray 2.60.0.
_SERVE_SCOPE = "ray.serve._private.tracing_utils"
_INGRESS, _LANE = "__call__", "handle"
_NO_REQUESTS = frozenset({"/health", "/metrics", "/ui", "/ui/state"})


def check() -> None:
    """Raise `ConfigError` if the environment asks for an exporter that cannot be had."""
    for name in environment.exporters(os.environ):
        if not entry_points(group=_GROUP, name=name):
            known = ", ".join(sorted({"otlp", *entry_points(group=_GROUP).names}))
            raise ConfigError("OTEL_TRACES_EXPORTER", name, f"use one of {known}, or install it")


def span_processors() -> list[SpanProcessor]:
    """Return a batching processor for every exporter that the environment asks for."""
    check()
    names = environment.exporters(os.environ)
    if not names:
        return []
    if (ours := environment.service_name(os.environ)) is not None:
        os.environ["OTEL_SERVICE_NAME"] = ours  # read by the provider, which Serve makes next
    return [
        _OfRequests(entry.load()())
        for name in names
        for entry in entry_points(group=_GROUP, name=name)
    ]


def start() -> None:
    """Make this process export its spans, unless Serve has seen to that or nobody asked."""
    if not (processors := _processors_if_needed()):
        return
    provider = TracerProvider()
    for processor in processors:
        provider.add_span_processor(processor)
    trace.set_tracer_provider(provider)


class _OfRequests(BatchSpanProcessor):
    """Leaves out what Serve traces beside requests: our own polls, scrapes and health checks.

    Serve also begins a trace anew in a replica that is called by a request it did not sample.
    """

    def on_end(self, span: ReadableSpan) -> None:
        """Queue a span that has ended, if it is to be exported."""
        scope = span.instrumentation_scope
        if scope is None or scope.name != _SERVE_SCOPE or _of_request(span):
            super().on_end(span)


def _of_request(span: ReadableSpan) -> bool:
    told = span.attributes or {}
    if {told.get("route"), told.get("request_route_path")} & _NO_REQUESTS:
        return False
    method = told.get("call_method", _INGRESS)
    return method == _INGRESS or (method == _LANE and span.parent is not None)


def _processors_if_needed() -> list[SpanProcessor]:
    if not environment.exporters(os.environ):
        return []
    # vLLM's engine process speaks OTLP too, but reads only this one of the two variables.
    os.environ.setdefault(
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", environment.otlp_protocol(os.environ)
    )
    is_proxy = isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
    return span_processors() if is_proxy else []
