from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.requests import Request

from rayspec.errors import PayloadTooLarge, SlowRequest
from rayspec.ingress.body import read_body


def request(*chunks: bytes | float, declared: int | None = None) -> Request:
    pending = list(chunks)

    async def receive() -> Any:
        while pending and isinstance(pending[0], float):
            await asyncio.sleep(pending.pop(0))  # type: ignore[arg-type]
        body = pending.pop(0) if pending else b""
        return {"type": "http.request", "body": body, "more_body": bool(pending)}

    headers = [] if declared is None else [(b"content-length", str(declared).encode())]
    return Request({"type": "http", "method": "POST", "headers": headers}, receive)


async def test_chunks_are_joined() -> None:
    assert await read_body(request(b"a", 0.0, b"b"), 2, 10) == b"ab"


@pytest.mark.parametrize("declared", [None, 3])
async def test_too_large(declared: int | None) -> None:
    with pytest.raises(PayloadTooLarge):
        await read_body(request(b"a", b"bc", declared=declared), 2)


async def test_a_body_that_does_not_come_is_a_408() -> None:
    with pytest.raises(SlowRequest) as caught:
        await read_body(request(b"a", 60.0, b"b"), 2, 0.02)
    assert caught.value.status == 408
