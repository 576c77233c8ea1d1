"""Requests through the middleware and the relay, with scripted lanes: spans, status, log line."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from ray.exceptions import TaskCancelledError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from rayspec.engine.messages import Begin, Call, End, Generation
from rayspec.errors import Overloaded
from rayspec.ingress.lanes import LaneFull
from rayspec.ingress.relay import Relay
from rayspec.routing import EngineSnapshot, Lane, PolicySpec, RequestView, Router
from rayspec.telemetry import journey
from rayspec.telemetry.metrics import IngressMetrics
from rayspec.telemetry.middleware import RequestTelemetry

S, P = Lane.SPECULATIVE, Lane.PLAIN
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
HEADERS = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01", "x-request-id": "req-1"}
BODY = {"model": "m", "prompt": "hidden", "max_tokens": 4}
GENERATION = Generation(3, 9, 4, 10, 5, (1, 2, 1), ("stop",), first_token_s=0.1, draft_step_s=0.01)
SSE = (("content-type", "text/event-stream"),)
Script = list[Begin | bytes | End | Exception | float]


def snapshot(lane: Lane) -> EngineSnapshot:
    return EngineSnapshot(lane, f"{lane}-1", 1.0, 0, 0, 0.0, attached=lane is S)


def answer(lane: Lane, *body: bytes | Exception | float, status: int = 200) -> Script:
    return [Begin(status, SSE, snapshot(lane)), *body, End(GENERATION, snapshot(lane))]


class Scripted:
    def __init__(self, script: Script) -> None:
        self._script = script
        self.calls: list[Call] = []

    async def stream(self, call: Call) -> AsyncGenerator[Begin | bytes | End, None]:
        self.calls.append(call)
        for item in self._script:
            if isinstance(item, Exception):
                raise item
            if isinstance(item, float):
                await asyncio.sleep(item)
            else:
                yield item


class Served:
    """An ingress with scripted lanes, in this process."""

    def __init__(self, speculative: Script, plain: Script = (), **settings: Any) -> None:  # type: ignore[assignment]
        self.lanes = {S: Scripted(speculative), P: Scripted(list(plain))}
        self.metrics = IngressMetrics()
        self.router = Router(PolicySpec(k_tiers=(0, 4)), tuple(self.lanes), lambda: 0.0)
        relay = Relay(self.lanes, self.router, self.metrics)
        journey.install(journey.Settings(metrics=self.metrics, **settings))

        async def complete(request: Request) -> Response:
            journey.current().asked(await request.json())
            return await relay.respond(
                RequestView("chat"), lambda _: Call("POST", "/v1/completions")
            )

        async def refused(request: Request, error: Exception) -> Response:
            return Response(status_code=429)

        self.app = Starlette(
            routes=[Route("/v1/completions", complete, methods=["POST"])],
            exception_handlers={Overloaded: refused},
        )
        self.app.add_middleware(RequestTelemetry)

    async def ask(self, path: str = "/v1/completions") -> httpx.Response:
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.post(path, json=BODY, headers=HEADERS)


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    yield
    journey.install(journey.Settings())


def by_name(exported: InMemorySpanExporter) -> dict[str, list[ReadableSpan]]:
    found: dict[str, list[ReadableSpan]] = {}
    for span in exported.get_finished_spans():
        found.setdefault(span.name, []).append(span)
    return found


def parent_of(span: ReadableSpan) -> int:
    assert span.parent is not None
    return span.parent.span_id


async def test_one_tree_from_the_client_to_the_lane(exported: InMemorySpanExporter) -> None:
    served = Served(answer(S, b"data: x\n\n"))
    assert (await served.ask()).status_code == 200

    spans = by_name(exported)
    (root,), (route,) = spans["POST /v1/completions"], spans["rayspec.route"]
    (call,) = spans["text_completion m"]
    assert f"{parent_of(root):016x}" == "00f067aa0ba902b7"
    assert parent_of(route) == parent_of(call) == root.context.span_id
    assert (root.kind, call.kind) == (SpanKind.SERVER, SpanKind.CLIENT)
    # The replica goes on with the call's span.
    (sent,) = served.lanes[S].calls
    assert dict(sent.trace)["traceparent"] == f"00-{TRACE}-{call.context.span_id:016x}-01"
    assert route.attributes is not None
    assert route.attributes["rayspec.rule"] == "default"
    for span in (root, call):
        assert span.attributes is not None
        assert span.attributes["gen_ai.usage.output_tokens"] == 9
        assert span.attributes["gen_ai.response.finish_reasons"] == ("stop",)
        assert span.attributes["rayspec.acceptance"] == 0.5
        assert span.attributes["http.response.status_code"] == 200
        assert span.status.status_code is StatusCode.UNSET
        assert "hidden" not in str(span.attributes)


async def test_prompts_are_told_where_that_is_switched_on(exported: InMemorySpanExporter) -> None:
    await Served(answer(S, b"x"), content=True).ask()
    (call,) = by_name(exported)["text_completion m"]
    assert call.attributes is not None
    assert "hidden" in str(call.attributes["gen_ai.input.messages"])


async def test_a_spill_is_two_decisions_and_two_calls(exported: InMemorySpanExporter) -> None:
    served = Served([LaneFull("full")], answer(P, b"x"))
    await served.ask()

    spans = by_name(exported)
    first, second = spans["text_completion m"]
    assert first.status.status_code is StatusCode.ERROR
    assert first.attributes is not None
    assert first.attributes["error.type"] == "full"
    assert second.status.status_code is StatusCode.UNSET
    rules = [span.attributes["rayspec.rule"] for span in spans["rayspec.route"] if span.attributes]
    assert rules == ["default", "spill"]
    (root,) = spans["POST /v1/completions"]
    assert root.attributes is not None
    assert (root.attributes["rayspec.lane"], root.attributes["rayspec.calls"]) == ("plain", 2)
    assert root.status.status_code is StatusCode.UNSET
    value = served.metrics.registry.get_sample_value
    assert value("rayspec_unfinished_calls_total", {"lane": "speculative", "cause": "full"}) == 1


async def test_what_every_lane_refuses_is_counted(exported: InMemorySpanExporter) -> None:
    served = Served([LaneFull("full")], [LaneFull("full")])
    assert (await served.ask()).status_code == 429

    (root,) = by_name(exported)["POST /v1/completions"]
    assert root.attributes is not None
    assert root.attributes["http.response.status_code"] == 429
    assert root.status.status_code is StatusCode.UNSET  # the client's matter
    value = served.metrics.registry.get_sample_value
    assert value("rayspec_refusals_total", {"status": "429"}) == 1


async def test_an_unexpected_error_is_one(exported: InMemorySpanExporter) -> None:
    served = Served([ValueError("ours")])
    assert (await served.ask()).status_code == 500

    (root,) = by_name(exported)["POST /v1/completions"]
    assert root.status.status_code is StatusCode.ERROR
    assert root.attributes is not None
    assert root.attributes["error.type"] == "ValueError"
    assert root.attributes["http.response.status_code"] == 500


async def test_a_client_that_left_while_ray_was_awaited_is_no_error_of_ours(
    exported: InMemorySpanExporter,
) -> None:
    await Served([TaskCancelledError()]).ask()
    for name in ("POST /v1/completions", "text_completion m"):
        (span,) = by_name(exported)[name]
        assert span.attributes is not None
        assert span.attributes["error.type"] == "disconnected"


async def test_a_lane_lost_in_the_middle_is_an_error(exported: InMemorySpanExporter) -> None:
    response = await Served(answer(S, b"data: x\n\n", LaneFull("gone"))).ask()
    assert response.status_code == 200  # which was sent before

    spans = by_name(exported)
    for name in ("POST /v1/completions", "text_completion m"):
        (span,) = spans[name]
        assert span.status.status_code is StatusCode.ERROR
        assert span.attributes is not None
        assert span.attributes["error.type"] == "full"


@pytest.mark.parametrize("body", [(60.0,), (b"data: x\n\n", 60.0)])
async def test_a_client_that_leaves_is_told(
    exported: InMemorySpanExporter, caplog: pytest.LogCaptureFixture, body: tuple[Any, ...]
) -> None:
    caplog.set_level(logging.INFO, "rayspec")
    served = Served(answer(S, *body) if body[0] != 60.0 else [60.0], request_log=True)
    task = asyncio.create_task(served.ask())
    while not served.lanes[S].calls:
        await asyncio.sleep(0)
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    for name in ("POST /v1/completions", "text_completion m"):
        (span,) = by_name(exported)[name]
        assert span.status.status_code is StatusCode.ERROR
        assert span.attributes is not None
        assert span.attributes["error.type"] == "disconnected"
    (record,) = [r for r in caplog.records if r.name == "rayspec.telemetry.journey"]
    assert vars(record)["status"] == 499
    value = served.metrics.registry.get_sample_value
    labels = {"lane": "speculative", "cause": "disconnected"}
    assert value("rayspec_unfinished_calls_total", labels) == 1


async def test_a_line_has_what_became_of_a_request(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "rayspec")
    await Served(answer(S, b"x"), request_log=True).ask()

    (record,) = [r for r in caplog.records if r.name == "rayspec.telemetry.journey"]
    found = vars(record)
    expected = {
        "request_id": "req-1",
        "path": "/v1/completions",
        "status": 200,
        "ended": "whole",
        "workload_class": "chat",
        "lane": "speculative",
        "prompt_tokens": 3,
        "output_tokens": 9,
        "steps": 4,
        "acceptance": 0.5,
        "finish_reasons": "stop",
    }
    assert {name: found[name] for name in expected} == expected
    assert 0 <= found["ttft_s"] <= found["e2e_s"]
    assert 'reason="default ' in record.getMessage()
    assert "hidden" not in record.getMessage()


async def test_scrapes_and_unknown_paths_are_not_followed(exported: InMemorySpanExporter) -> None:
    served = Served([])
    assert (await served.ask("/metrics")).status_code == 404
    assert exported.get_finished_spans() == ()
