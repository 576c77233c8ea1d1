"""One request at the ingress, from its arrival to its end: its span, its calls, its log line."""

from __future__ import annotations

import contextvars
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import INVALID_SPAN, Span, SpanKind, Status, StatusCode

from rayspec.routing.types import Decision, Lane
from rayspec.telemetry import attributes, spans
from rayspec.telemetry.cancelled import DISCONNECTED
from rayspec.telemetry.lane_call import LaneCall
from rayspec.telemetry.metrics import IngressMetrics

__all__ = ["Journey", "Settings", "current", "enter", "install"]

logger = logging.getLogger(__name__)

# What a client that left is said to have got, as nginx and others log it.
_CLIENT_GONE = 499


@dataclass(frozen=True, slots=True)
class Settings:
    """What is told of requests: a log line of each, the text of prompts; and where refusals go."""

    request_log: bool = False
    content: bool = False
    metrics: IngressMetrics | None = None


_settings = Settings()
_journey: contextvars.ContextVar[Journey | None] = contextvars.ContextVar("journey", default=None)


def install(settings: Settings) -> None:
    """Use `settings` for all requests of this process."""
    global _settings
    _settings = settings


def current() -> Journey:
    """Return the journey of the request that is being answered; a silent one outside of any."""
    return _journey.get() or Journey(INVALID_SPAN, "", "", Settings())


def enter(journey: Journey) -> None:
    """Make `journey` the current one in this task and those that it starts."""
    _journey.set(journey)


class Journey:
    """One HTTP request; `close` it when its answer has ended, however that was."""

    def __init__(self, span: Span, path: str, request_id: str, settings: Settings) -> None:
        self.span = span
        self.status: int | None = None
        self._path = path
        self._request_id = request_id
        self._settings = settings
        self._started = time.monotonic()
        self._since_ns = time.time_ns()
        self._request: Mapping[str, Any] = {}
        self._calls: list[LaneCall] = []

    @classmethod
    def begin(cls, method: str, path: str, headers: Mapping[str, str]) -> Journey:
        """Begin one under the trace of the client, if it sent one; names of headers are lower."""
        context = spans.parent(headers)
        span = spans.TRACER.start_span(f"{method} {path}", context, kind=SpanKind.SERVER)
        request_id = headers.get("x-request-id", "")
        if span.is_recording():
            span.set_attributes(
                {
                    "http.request.method": method,
                    "url.path": path,
                    "http.route": path,
                    "rayspec.request_id": request_id,
                }
            )
        return cls(span, path, request_id, _settings)

    def asked(self, body: Mapping[str, Any]) -> None:
        """Note what the request asks for; it is about to be routed."""
        self._since_ns = time.time_ns()
        if not self.span.is_recording():
            return
        self._request = attributes.of_request(self._path, body)
        if self._settings.content:
            self._request = {**self._request, **attributes.content_of_request(body)}

    def call(self, decision: Decision, loads: Callable[[], Mapping[Lane, int]]) -> LaneCall:
        """Note a decision, the first one or after a lane did not answer, and begin its call."""
        context = trace.set_span_in_context(self.span)
        call = LaneCall(
            decision, loads, context=context, since_ns=self._since_ns, request=self._request
        )
        self._calls.append(call)
        return call

    def spilling(self) -> None:
        """Note that the request is about to be routed anew."""
        self._since_ns = time.time_ns()

    def close(self, status: int | None, failure: str | None = None) -> None:
        """End the request with what the client got; `failure` says what cut its answer off."""
        call = self._calls[-1] if self._calls else None
        answered = call is not None and call.status is not None
        if failure is None and call is not None and answered:
            failure = call.ending
        if not answered and self._settings.metrics is not None and status is not None:
            self._settings.metrics.refusals.labels(str(status)).inc()
        if self.span.is_recording():
            self._finish_span(call, status, failure)
        self.span.end()
        if self._settings.request_log:
            fields = self._fields(call, status, failure)
            told = " ".join(f"{name}={_told(value)}" for name, value in fields.items())
            logger.info("request %s", told, extra=fields)

    def _finish_span(self, call: LaneCall | None, status: int | None, failure: str | None) -> None:
        if status is not None:
            self.span.set_attribute("http.response.status_code", status)
        if call is not None:
            self.span.set_attributes(
                {
                    "rayspec.lane": str(call.decision.lane),
                    "rayspec.workload_class": call.decision.workload_class,
                    "rayspec.rule": call.decision.rule,
                    "rayspec.calls": len(self._calls),
                }
            )
            if call.generation is not None and call.generation.prompt_tokens:
                self.span.set_attributes(attributes.of_generation(call.generation))
        if failure is not None:
            self.span.set_attribute("error.type", failure)
            self.span.set_status(Status(StatusCode.ERROR, failure))
        elif status is not None and status >= 500:
            self.span.set_attribute("error.type", str(status))
            self.span.set_status(Status(StatusCode.ERROR))

    def _fields(
        self, call: LaneCall | None, status: int | None, failure: str | None
    ) -> dict[str, Any]:
        """Return what the log line says; nothing of it is the client's text."""
        fields: dict[str, Any] = {
            "request_id": self._request_id or None,
            "path": self._path,
            "status": _CLIENT_GONE if failure == DISCONNECTED else status,
            "ended": failure or "whole",
        }
        if call is not None:
            decision, generation = call.decision, call.generation
            fields |= {
                "workload_class": decision.workload_class,
                "lane": str(decision.lane),
                "reason": decision.reason,
                "k": decision.k,
                "ttft_s": call.first_chunk_s,
            }
            if generation is not None:
                fields |= {
                    "prompt_tokens": generation.prompt_tokens,
                    "output_tokens": generation.output_tokens,
                    "steps": generation.steps,
                    "acceptance": generation.acceptance,
                    "finish_reasons": ",".join(generation.finish_reasons),
                }
        fields["e2e_s"] = time.monotonic() - self._started
        return {name: value for name, value in fields.items() if value is not None}


def _told(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f'"{value}"' if " " in str(value) else str(value)
