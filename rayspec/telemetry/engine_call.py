"""The span of one call in a replica, over vLLM's own: under it vLLM reports what its engine did."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from types import TracebackType
from typing import Self

from opentelemetry import trace
from opentelemetry.context import attach
from opentelemetry.trace import SpanKind, Status, StatusCode

from rayspec.engine.messages import Call, Generation
from rayspec.routing.types import Lane
from rayspec.telemetry import attributes, spans
from rayspec.telemetry.cancelled import CANCELLED, DISCONNECTED

__all__ = ["EngineCall"]

logger = logging.getLogger(__name__)

_NAME = "rayspec.engine"


class EngineCall:
    """Follows one call as a context manager, in the task that answers it.

    `call` is the one to answer, whose headers make vLLM go on with the trace. `log` makes a line of
    every call that ends.
    """

    def __init__(self, call: Call, lane: Lane, replica: str, *, log: bool) -> None:
        self._span = spans.TRACER.start_span(
            _NAME, spans.parent(dict(call.trace)), kind=SpanKind.SERVER
        )
        self._lane = lane
        self._log = log
        self._generation: Generation | None = None
        self.call = replace(call, headers=(*call.headers, *spans.carrier_of(self._span)))
        if self._span.is_recording():
            self._span.set_attributes(
                {"rayspec.lane": str(lane), "rayspec.replica": replica, "url.path": call.path}
            )

    def __enter__(self) -> Self:
        # A stream is closed in a context that need not be the one that it began in, so that this
        # cannot be undone; the task, and so its context, is the call's own.
        attach(trace.set_span_in_context(self._span))
        return self

    def answered(self, status: int) -> None:
        """Note vLLM's status."""
        self._span.set_attribute("http.response.status_code", status)
        if status >= 500:
            self._span.set_status(Status(StatusCode.ERROR))

    def finished(
        self, generation: Generation, texts: Iterable[tuple[str, str | None]] | None
    ) -> None:
        """Note what was generated, and its text if that is wanted."""
        self._generation = generation
        if self._span.is_recording() and generation.prompt_tokens:
            self._span.set_attributes(attributes.of_generation(generation))
            if texts is not None:
                self._span.set_attributes(attributes.content_of_answer(texts))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        ended = "whole"
        if kind is not None:
            left = issubclass(kind, CANCELLED)
            ended = DISCONNECTED if left else kind.__name__
            self._span.set_attribute("error.type", ended)
            self._span.set_status(Status(StatusCode.ERROR, ended if left else str(error)))
        self._span.end()
        if self._log:
            told = self._generation or Generation()
            fields = {
                "lane": str(self._lane),
                "ended": ended,
                "prompt_tokens": told.prompt_tokens,
                "output_tokens": told.output_tokens,
                "steps": told.steps,
                "finish_reasons": ",".join(told.finish_reasons),
            }
            shown = " ".join(f"{name}={value}" for name, value in fields.items())
            logger.info("call %s", shown, extra=fields)
