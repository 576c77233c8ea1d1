from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from rayspec.engine.asgi import ResponseStart, stream
from rayspec.engine.messages import Call


async def echo(request: Request) -> JSONResponse:
    body = (await request.body()).decode()
    return JSONResponse(
        {"body": body, "tag": request.headers["x-tag"], "q": request.query_params["q"]}, 201
    )


async def fail(request: Request) -> JSONResponse:
    raise RuntimeError("broken")


class Endless:
    """Streams for ever; `gone` is set when the client leaves."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()

    async def __call__(self, request: Request) -> StreamingResponse:
        return StreamingResponse(self.chunks(), media_type="text/event-stream")

    async def chunks(self) -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"tick"
                await asyncio.sleep(0.01)
        finally:
            self.gone.set()


def app(*routes: Route) -> Any:
    return Starlette(routes=list(routes))


async def test_answer_has_status_headers_and_body() -> None:
    call = Call("POST", "/echo?q=1", (("X-Tag", "a"),), b"hello")
    items = [item async for item in stream(app(Route("/echo", echo, methods=["POST"])), call)]

    start, *body = items
    assert isinstance(start, ResponseStart)
    assert start.status == 201
    assert ("content-type", "application/json") in start.headers
    assert b"".join(chunk for chunk in body if isinstance(chunk, bytes)) == (
        b'{"body":"hello","tag":"a","q":"1"}'
    )


async def test_failure_of_the_application_is_raised() -> None:
    async def drain() -> None:
        async for item in stream(app(Route("/", fail)), Call("GET", "/")):
            # Starlette still answers; what it could not handle comes after.
            assert isinstance(item, ResponseStart | bytes)

    with pytest.raises(RuntimeError, match="broken"):
        await drain()


async def test_closing_early_tells_the_application_that_the_client_left() -> None:
    endless = Endless()
    async with aclosing(stream(app(Route("/", endless.__call__)), Call("GET", "/"))) as items:
        assert isinstance(await anext(items), ResponseStart)
        assert await anext(items) == b"tick"

    async with asyncio.timeout(5):
        while not endless.gone.is_set():
            # Between two chunks Starlette cancels the sender alone: it is left to the garbage
            # collector, which does not run while nothing happens, to close the generator.
            gc.collect()
            await asyncio.sleep(0.01)


async def test_a_slow_reader_holds_the_application_back() -> None:
    sent = 0

    async def count() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(10_000):
            sent += 1
            yield b"x"

    async def endpoint(request: Request) -> StreamingResponse:
        return StreamingResponse(count())

    async with aclosing(stream(app(Route("/", endpoint)), Call("GET", "/"))) as items:
        await anext(items)
        for _ in range(50):
            await asyncio.sleep(0)
        assert sent < 200


async def test_work_in_a_task_of_its_own_ends_when_the_client_leaves() -> None:
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    async def watched(scope: Any, receive: Any, send: Any) -> None:
        # As vLLM does for answers that are not streamed.
        await receive()
        tasks = {asyncio.create_task(work()), asyncio.create_task(receive())}
        _, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()

    items = stream(watched, Call("GET", "/"))
    waiting = asyncio.ensure_future(anext(items))
    await asyncio.sleep(0.05)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    await asyncio.wait_for(ended.wait(), 5)
