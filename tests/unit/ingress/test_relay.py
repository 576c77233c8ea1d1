from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest
from starlette.requests import ClientDisconnect
from starlette.responses import Response, StreamingResponse
from starlette.types import Message

from rayspec.engine.messages import Begin, Call, End, Generation
from rayspec.errors import Overloaded, Unavailable
from rayspec.ingress.lanes import LaneDown, LaneFull
from rayspec.ingress.relay import Relay, RequestTimeout
from rayspec.routing import (
    Decision,
    EngineProfile,
    EngineSnapshot,
    Lane,
    PolicySpec,
    RequestView,
    Router,
)
from rayspec.routing.cost_model import PrefillTimes, StepPoint
from rayspec.routing.types import Speculation
from rayspec.telemetry.cancelled import DISCONNECTED
from rayspec.telemetry.metrics import IngressMetrics

S, A, P = Lane.SPECULATIVE, Lane.ALTERNATIVE, Lane.PLAIN
CHAT = RequestView("chat")
JSON = (("content-type", "application/json"), ("content-length", "5"))
SSE = (("content-type", "text/event-stream; charset=utf-8"),)
GENERATION = Generation(prompt_tokens=3, output_tokens=9, steps=4, drafted=10, accepted=5)
Script = list[Begin | bytes | End | Exception | float]


def snapshot(lane: Lane) -> EngineSnapshot:
    return EngineSnapshot(lane, f"{lane}-1", 1.0, 0, 0, 0.0, attached=lane is S)


def answer(lane: Lane, *body: bytes | Exception | float, headers: Any = JSON) -> Script:
    begin = Begin(200, headers, snapshot(lane))
    return [begin, *body, End(GENERATION, snapshot(lane))]


class ScriptedLane:
    """Plays one script per call: items to yield, errors to raise, seconds to sleep."""

    def __init__(self, *scripts: Script) -> None:
        self._scripts = list(scripts)
        self.calls: list[Call] = []
        self.open = 0

    async def stream(self, call: Call) -> AsyncGenerator[Begin | bytes | End, None]:
        self.calls.append(call)
        self.open += 1
        try:
            for item in self._scripts.pop(0):
                if isinstance(item, Exception):
                    raise item
                if isinstance(item, float):
                    await asyncio.sleep(item)
                else:
                    yield item
        finally:
            self.open -= 1


class Bench:
    """A relay between scripted lanes; checks that nothing stays behind."""

    def __init__(
        self,
        timeout_s: float | None = None,
        first_token_timeout_s: float | None = None,
        **scripts: list[Script],
    ) -> None:
        self.lanes = {Lane(name): ScriptedLane(*lane) for name, lane in scripts.items()}
        spec = PolicySpec(k_tiers=(0, 4), alternative_k_tiers=(0, 8))
        self.router = Router(spec, tuple(self.lanes), lambda: 0.0)
        self.metrics = IngressMetrics()
        self.relay = Relay(
            self.lanes,
            self.router,
            self.metrics,
            timeout_s=timeout_s,
            first_token_timeout_s=first_token_timeout_s,
        )

    async def ask(self, view: RequestView = CHAT, *, streams: bool = False) -> Response:
        return await self.relay.respond(view, make_call, streams=streams)

    def check_empty(self) -> None:
        assert all(lane.open == 0 for lane in self.lanes.values())
        assert all(self.router.ledger.in_flight(lane) == 0 for lane in Lane)
        for lane in self.lanes:
            value = self.metrics.registry.get_sample_value("rayspec_in_flight", {"lane": lane})
            assert not value


def make_call(decision: Decision) -> Call:
    return Call("POST", "/v1/completions", body=f"k={decision.k}".encode())


async def read(response: Response) -> bytes:
    if not isinstance(response, StreamingResponse):
        return bytes(response.body)
    body: Any = response.body_iterator
    async with aclosing(body) as chunks:
        return b"".join([chunk async for chunk in chunks])


async def test_whole_answer_with_headers_that_say_why() -> None:
    bench = Bench(speculative=[answer(S, b"he", b"llo")], plain=[])
    response = await bench.ask()

    assert await read(response) == b"hello"
    assert response.headers["content-length"] == "5"
    assert response.headers["x-rayspec-lane"] == "speculative"
    assert response.headers["x-rayspec-class"] == "chat"
    assert response.headers["x-rayspec-reason"].startswith("default")
    assert "x-rayspec-predicted" not in response.headers
    bench.check_empty()


async def test_stream_is_passed_on_and_settled_at_its_end() -> None:
    bench = Bench(speculative=[answer(S, b"data: 1\n\n", b"data: 2\n\n", headers=SSE)], plain=[])
    response = await bench.ask()

    assert isinstance(response, StreamingResponse)
    assert bench.router.ledger.in_flight(S) == 1
    assert await read(response) == b"data: 1\n\ndata: 2\n\n"
    bench.check_empty()


def measured(lane: Lane, seconds: float) -> EngineSnapshot:
    points = tuple(StepPoint(1, k, 100, seconds) for k in ((0, 4) if lane is S else (0,)))
    return replace(
        snapshot(lane), profile=EngineProfile(points, PrefillTimes(0.001, 0.00001), 16, 2048)
    )


async def test_predictions_are_told_and_compared_with_what_happened() -> None:
    bench = Bench(speculative=[answer(S, b"x")], plain=[])
    bench.router.observe(measured(S, 0.01))
    bench.router.observe(measured(P, 0.02))
    response = await bench.ask(replace(CHAT, max_tokens=10))

    assert response.headers["x-rayspec-reason"].startswith("faster speculative ")
    predicted = dict(part.split("=") for part in response.headers["x-rayspec-predicted"].split())
    assert list(predicted) == ["speculative", "plain", "k"]
    assert predicted["k"] == "4"
    assert predicted["plain"].endswith("ms")
    labels = {"lane": "speculative", "workload_class": "chat"}
    value = bench.metrics.registry.get_sample_value
    assert value("rayspec_predicted_latency_seconds_count", labels) == 1
    assert value("rayspec_measured_latency_seconds_count", labels) == 1
    assert value("rayspec_prediction_ratio_count", {"lane": "speculative"}) == 1
    assert value("rayspec_believed_acceptance", {"workload_class": "chat"}) == 0.6
    bench.check_empty()


async def test_steps_without_a_draft_teach_what_the_class_gets() -> None:
    # 30 tokens, 5 of them drafts and one from the prompt: 24 steps, 4 of them with drafts.
    generation = Generation(3, 30, steps=4, drafted=16, accepted=5, by_accepted=(1, 1, 2, 0, 0))
    end = End(generation, snapshot(S))
    lost = End(generation, replace(snapshot(S), attached=False))
    begin = Begin(200, JSON, snapshot(S))
    bench = Bench(speculative=[[begin, b"x", lost], [begin, b"x", end]], plain=[])

    await bench.ask()
    positions = bench.router.acceptance.estimate("chat").positions
    assert (positions[0].mean, positions[0].trials) == (0.75, 4)
    await bench.ask()
    positions = bench.router.acceptance.estimate("chat").positions
    assert (positions[0].mean, positions[0].trials) == (6 / 28, 28)


async def test_a_request_whose_answer_began_waits_for_no_prefill() -> None:
    script = answer(S, b"data: 1\n\n", b"data: 2\n\n", headers=SSE)
    bench = Bench(speculative=[script], plain=[])
    response = await bench.ask(replace(CHAT, body_bytes=4000))
    assert isinstance(response, StreamingResponse)
    assert bench.router.ledger.view(S).backlog == 1000

    chunks: Any = response.body_iterator
    await anext(chunks)
    assert bench.router.ledger.view(S).backlog == 0
    await chunks.aclose()


async def test_acceptance_is_learnt() -> None:
    bench = Bench(speculative=[answer(S, b"x")], plain=[])
    await bench.ask()

    assert bench.router.acceptance.estimate("chat").mean == 0.5


async def test_a_stream_that_its_client_leaves_is_settled() -> None:
    bench = Bench(speculative=[answer(S, b"data: 1\n\n", 60.0, headers=SSE)], plain=[])
    response = await bench.ask()
    assert isinstance(response, StreamingResponse)
    chunks: Any = response.body_iterator
    await anext(chunks)
    await chunks.aclose()

    bench.check_empty()


@pytest.mark.parametrize("version", ["2.3", "2.4"])
async def test_a_stream_that_its_client_left_before_it_began_is_settled(version: str) -> None:
    bench = Bench(speculative=[answer(S, b"data: 1\n\n", b"data: 2\n\n", headers=SSE)])
    response = await bench.ask(streams=True)

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        await asyncio.sleep(0)
        raise OSError("the client is gone")

    with contextlib.suppress(ClientDisconnect):
        await response({"type": "http", "asgi": {"spec_version": version}}, receive, send)
    bench.check_empty()
    unfinished = {"lane": S, "cause": DISCONNECTED}
    assert (
        bench.metrics.registry.get_sample_value("rayspec_unfinished_calls_total", unfinished) == 1
    )


async def test_a_request_that_is_cancelled_is_settled() -> None:
    bench = Bench(speculative=[[60.0]], plain=[])
    task = asyncio.create_task(bench.ask())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    bench.check_empty()


async def test_a_full_lane_spills() -> None:
    bench = Bench(speculative=[[LaneFull()]], plain=[answer(P, b"x")])
    response = await bench.ask()

    assert response.headers["x-rayspec-lane"] == "plain"
    assert response.headers["x-rayspec-reason"] == "spill speculative lane full"
    bench.check_empty()


async def test_a_wish_is_kept_while_the_lane_is_full() -> None:
    bench = Bench(speculative=[[LaneFull()]], plain=[answer(P, b"x")])
    with pytest.raises(Overloaded):
        await bench.ask(RequestView("chat", Speculation.ON))

    bench.check_empty()


async def test_a_wish_is_not_kept_when_the_lane_is_gone() -> None:
    bench = Bench(speculative=[[LaneDown("died")]], plain=[answer(P, b"x")])
    response = await bench.ask(RequestView("chat", Speculation.ON))

    assert response.headers["x-rayspec-reason"] == "spill speculative lane down"
    bench.check_empty()


async def test_both_lanes_full_is_an_overload() -> None:
    bench = Bench(speculative=[[LaneFull()]], plain=[[LaneFull()]])
    with pytest.raises(Overloaded):
        await bench.ask()

    bench.check_empty()


async def test_both_lanes_down_is_unavailable() -> None:
    bench = Bench(speculative=[[LaneDown("died")]], plain=[[LaneDown("died")]])
    with pytest.raises(Unavailable):
        await bench.ask()

    bench.check_empty()


async def test_a_replica_that_dies_in_a_whole_answer_costs_only_time() -> None:
    dying = answer(S, b"he", LaneDown("died"))
    bench = Bench(speculative=[dying], plain=[answer(P, b"hello")])
    response = await bench.ask()

    assert await read(response) == b"hello"
    assert response.headers["x-rayspec-reason"] == "spill speculative lane down"
    bench.check_empty()


async def test_a_replica_that_dies_in_a_stream_ends_it_with_an_error() -> None:
    dying = answer(S, b"data: 1\n\n", LaneDown("died"), headers=SSE)
    bench = Bench(speculative=[dying], plain=[])
    body = await read(await bench.ask())

    assert body.startswith(b'data: 1\n\ndata: {"error": ')
    assert body.endswith(b"data: [DONE]\n\n")
    bench.check_empty()


@pytest.mark.parametrize("script", [[], [b"early"], [Begin(200, JSON, snapshot(S))]])
async def test_an_answer_that_breaks_the_protocol_counts_as_a_dead_replica(script: Script) -> None:
    bench = Bench(speculative=[script], plain=[answer(P, b"x")])
    response = await bench.ask()

    assert response.headers["x-rayspec-lane"] == "plain"
    bench.check_empty()


async def test_timeout_before_and_in_an_answer() -> None:
    bench = Bench(timeout_s=0.05, speculative=[[60.0], answer(S, b"a", 60.0)], plain=[])
    for _ in range(2):
        with pytest.raises(RequestTimeout):
            await bench.ask()

    bench.check_empty()


async def test_timeout_in_a_stream_ends_it_with_an_error() -> None:
    slow = answer(S, b"data: 1\n\n", 60.0, headers=SSE)
    bench = Bench(timeout_s=0.05, speculative=[slow], plain=[])
    body = await read(await bench.ask())

    assert b"TimeoutError" in body
    bench.check_empty()


@pytest.mark.parametrize("script", [[60.0], [Begin(200, SSE, snapshot(S)), 60.0]])
async def test_a_stream_without_a_token_in_time_has_a_status_of_its_own(script: Script) -> None:
    bench = Bench(first_token_timeout_s=0.05, timeout_s=60, speculative=[script], plain=[])
    with pytest.raises(RequestTimeout, match=r"no token within 0\.05 seconds") as caught:
        await bench.ask(streams=True)
    assert caught.value.status == 504
    bench.check_empty()


async def test_only_the_first_token_of_a_stream_has_that_deadline() -> None:
    stream = answer(S, b"data: 1\n\n", 0.1, b"data: 2\n\n", headers=SSE)
    whole: Script = [0.1, *answer(S, b"whole")]
    bench = Bench(first_token_timeout_s=0.05, speculative=[stream, whole], plain=[])
    assert await read(await bench.ask(streams=True)) == b"data: 1\n\ndata: 2\n\n"
    assert await read(await bench.ask()) == b"whole"
    bench.check_empty()


async def test_a_replica_that_dies_before_the_first_token_is_replaced_by_the_other_lane() -> None:
    dies: Script = [Begin(200, SSE, snapshot(S)), LaneDown("died")]
    bench = Bench(speculative=[dies], plain=[answer(P, b"data: 1\n\n", headers=SSE)])
    response = await bench.ask()
    assert response.headers["x-rayspec-lane"] == "plain"
    assert await read(response) == b"data: 1\n\n"
    bench.check_empty()


async def test_the_lane_is_told_the_decided_k() -> None:
    bench = Bench(speculative=[answer(S, b"x")], plain=[answer(P, b"x")])
    bench.router.observe(snapshot(P))
    bench.router.observe(snapshot(S))
    await bench.ask(RequestView("chat", k=3))
    await bench.ask(RequestView("chat", Speculation.OFF, k=3))

    assert bench.lanes[S].calls[0].body == b"k=3"
    assert bench.lanes[P].calls[0].body == b"k=None"


@pytest.mark.parametrize(
    ("view", "asked"),
    [
        (CHAT, [S, A, P]),
        (RequestView("chat", Speculation.ON), [S, A]),
        (RequestView("chat", Speculation.OFF), [P]),
        (RequestView("chat", lane=A), [A]),
    ],
)
async def test_full_lanes_are_left_one_after_the_other_as_the_wish_allows(
    view: RequestView, asked: list[Lane]
) -> None:
    full: Script = [LaneFull("full")]
    bench = Bench(speculative=[full], alternative=[full], plain=[full])
    with pytest.raises(Overloaded):
        await bench.ask(view)
    spilled = [
        bench.metrics.registry.get_sample_value(
            "rayspec_spills_total", {"from_lane": lane, "cause": "full"}
        )
        for lane in (S, A, P)
    ]
    assert [lane for lane, count in zip((S, A, P), spilled, strict=True) if count] == asked[:-1]
    bench.check_empty()


async def test_the_last_lane_answers_what_two_others_did_not() -> None:
    bench = Bench(
        speculative=[[LaneDown("gone")]],
        alternative=[[LaneFull("full")]],
        plain=[answer(P, b"hello")],
    )
    response = await bench.ask(RequestView("chat", lane=S))
    assert await read(response) == b"hello"
    assert response.headers["x-rayspec-lane"] == "plain"
    assert response.headers["x-rayspec-reason"] == "spill alternative lane full"
    bench.check_empty()
