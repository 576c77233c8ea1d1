"""The spans of one attempt at a request: the decision for a lane, and the call to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from rayspec.engine.messages import Begin, Call, Generation
from rayspec.routing.types import Decision, Lane
from rayspec.telemetry import attributes
from rayspec.telemetry.spans import TRACER, carrier_of

__all__ = ["LaneCall"]

_DECISION = "rayspec.route"
_CALL = "rayspec.call"


class LaneCall:
    """One call to a lane, from its decision to its end; `close` it exactly once.

    `request` is what its span tells of the request, `since_ns` when the decision was begun.
    """

    def __init__(
        self,
        decision: Decision,
        loads: Callable[[], Mapping[Lane, int]],
        *,
        context: Context,
        since_ns: int,
        request: Mapping[str, Any],
    ) -> None:
        self.decision = decision
        self.generation: Generation | None = None
        self.status: int | None = None
        self.first_chunk_s: float | None = None
        self.ending: str | None = None  # what cut the answer off
        decided = TRACER.start_span(_DECISION, context, start_time=since_ns)
        self._span: Span = TRACER.start_span(_name(request), context, kind=SpanKind.CLIENT)
        if decided.is_recording():
            decided.set_attributes(attributes.of_decision(decision, loads()))
        if self._span.is_recording():
            self._span.set_attributes({**request, "rayspec.lane": str(decision.lane)})
        decided.end()

    def outgoing(self, call: Call) -> Call:
        """Return `call` as the replica gets it, with the trace that it goes on with."""
        return replace(call, trace=carrier_of(self._span))

    def began(self, begin: Begin) -> None:
        """Note that a replica answers."""
        self.status = begin.status
        if self._span.is_recording():
            self._span.set_attribute("http.response.status_code", begin.status)
            self._span.set_attribute("rayspec.replica", begin.snapshot.replica)
            self._span.set_attribute("rayspec.draft_attached", begin.snapshot.attached)

    def first_chunk(self, seconds: float) -> None:
        """Note the first part of the answer, `seconds` after the request came in."""
        self.first_chunk_s = seconds
        self._span.set_attribute("gen_ai.response.time_to_first_chunk", seconds)

    def finished(self, generation: Generation) -> None:
        """Note that the answer is whole."""
        self.generation = generation
        if self._span.is_recording() and generation.prompt_tokens:
            self._span.set_attributes(attributes.of_generation(generation))

    def close(self, ending: str | None = None, error: BaseException | None = None) -> None:
        """End the span; `ending` says in one word what cut the answer off, None if nothing did."""
        self.ending = ending
        if ending is not None:
            self._span.set_status(Status(StatusCode.ERROR, _described(ending, error)))
            self._span.set_attribute("error.type", ending)
        elif self.status is not None and self.status >= 400:
            self._span.set_status(Status(StatusCode.ERROR))
            self._span.set_attribute("error.type", str(self.status))
        self._span.end(time.time_ns())


def _described(ending: str, error: BaseException | None) -> str:
    told = "" if error is None else str(error)
    return f"{ending}: {told}" if told else ending


def _name(request: Mapping[str, Any]) -> str:
    parts = (request.get("gen_ai.operation.name"), request.get("gen_ai.request.model"))
    return " ".join(part for part in parts if part) if parts[0] else _CALL
