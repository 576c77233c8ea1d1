"""Run one request through an ASGI application in this process and stream the answer.

`httpx.ASGITransport` would do, but it gathers the whole body before it returns.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from rayspec.engine.messages import Call, Headers

__all__ = ["ResponseStart", "stream"]

Message = MutableMapping[str, Any]
AsgiApp = Callable[
    [Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]],
    Awaitable[None],
]

# Chunks the application may be ahead of a slow client before it waits.
_BUFFERED_CHUNKS = 64
# How long an application may take to notice that its client went away.
_LEAVE_S = 1.0


@dataclass(frozen=True, slots=True)
class ResponseStart:
    """Status and headers of an answer, before its body."""

    status: int
    headers: Headers


async def stream(app: AsgiApp, call: Call) -> AsyncGenerator[ResponseStart | bytes, None]:
    """Yield the `ResponseStart` and then the body chunks of `call`, as the application sends them.

    Closing the generator looks to the application like a client that went away. An exception of
    the application is raised here.
    """
    items: asyncio.Queue[ResponseStart | bytes | None] = asyncio.Queue(_BUFFERED_CHUNKS)
    client_gone = asyncio.Event()
    body_sent = False

    async def receive() -> Message:
        nonlocal body_sent
        if not body_sent:
            body_sent = True
            return {"type": "http.request", "body": call.body, "more_body": False}
        await client_gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if client_gone.is_set():
            await asyncio.sleep(0)  # lets a cancellation reach an application that never waits
        elif message["type"] == "http.response.start":
            headers = tuple(
                (name.decode("latin-1"), value.decode("latin-1"))
                for name, value in message.get("headers", ())
            )
            await items.put(ResponseStart(message["status"], headers))
        elif message["type"] == "http.response.body" and message.get("body"):
            await items.put(bytes(message["body"]))

    async def run() -> None:
        try:
            await app(_scope(call), receive, send)
        finally:
            if not client_gone.is_set():
                await items.put(None)

    task = asyncio.create_task(run())
    try:
        while (item := await items.get()) is not None:
            yield item
        await task
    finally:
        client_gone.set()
        while not items.empty():
            items.get_nowait()  # frees a put that waits for room
        # An application that watches for it ends its own tasks now; a cancellation from outside
        # would end the watching and leave those tasks behind.
        await asyncio.wait({task}, timeout=_LEAVE_S)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await task


def _scope(call: Call) -> Message:
    path, _, query = call.path.partition("?")
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": call.method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in call.headers],
        "client": None,
        "server": None,
        "state": {},
    }
