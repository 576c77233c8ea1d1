from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from rayspec.engine.messages import Call, Generation
from rayspec.routing import Lane
from rayspec.telemetry.engine_call import EngineCall

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALL = Call(
    "POST",
    "/v1/completions",
    (("x-request-id", "r"),),
    b"",
    (("traceparent", f"00-{TRACE}-00f067aa0ba902b7-01"),),
)


async def answered(call: Call, error: Exception | None = None) -> AsyncGenerator[Call, None]:
    with EngineCall(call, Lane.PLAIN, "replica", log=True) as followed:
        followed.answered(200)
        yield followed.call
        if error is not None:
            raise error
        followed.finished(Generation(3, 9, finish_reasons=("length",)), [("text", "length")])


async def test_vllm_goes_on_under_the_replica(
    exported: InMemorySpanExporter, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "rayspec")
    (sent,) = [call async for call in answered(CALL)]

    (span,) = exported.get_finished_spans()
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == "00f067aa0ba902b7"
    headers = dict(sent.headers)
    assert headers["traceparent"] == f"00-{TRACE}-{span.context.span_id:016x}-01"
    assert headers["x-request-id"] == "r"
    assert span.attributes is not None
    assert span.attributes["gen_ai.response.finish_reasons"] == ("length",)
    assert "text" in str(span.attributes["gen_ai.output.messages"])
    (record,) = caplog.records
    assert (vars(record)["lane"], vars(record)["output_tokens"]) == ("plain", 9)


async def test_an_error_is_one(exported: InMemorySpanExporter) -> None:
    with pytest.raises(ValueError, match="broken"):
        [call async for call in answered(CALL, ValueError("broken"))]
    (span,) = exported.get_finished_spans()
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "broken")


async def test_a_client_that_leaves_is_told(exported: InMemorySpanExporter) -> None:
    async with aclosing(answered(CALL)) as answer:
        await anext(answer)
    (span,) = exported.get_finished_spans()
    assert span.status.description == "disconnected"


async def test_without_a_trace_nothing_is_sent_on() -> None:
    (sent,) = [call async for call in answered(Call("POST", "/v1/completions"))]
    assert sent.headers == ()
