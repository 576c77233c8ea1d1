"""Reads a request body up to a limit, and not for ever."""

from __future__ import annotations

import asyncio

from starlette.requests import Request

from rayspec.errors import PayloadTooLarge, SlowRequest

__all__ = ["read_body"]


async def read_body(request: Request, max_bytes: int, timeout_s: float | None = None) -> bytes:
    """Return the body; raises `PayloadTooLarge` as soon as it exceeds `max_bytes`.

    Raises `SlowRequest` where it has not come in after `timeout_s`.
    """
    try:
        async with asyncio.timeout(timeout_s):
            return await _read(request, max_bytes)
    except TimeoutError:
        raise SlowRequest(
            f"The request body did not arrive within {timeout_s:g} seconds."
        ) from None


async def _read(request: Request, max_bytes: int) -> bytes:
    declared = request.headers.get("content-length", "")
    size = int(declared) if declared.isdecimal() else 0
    chunks: list[bytes] = []
    if size <= max_bytes:
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
            if size > max_bytes:
                break
            chunks.append(chunk)
    if size > max_bytes:
        raise PayloadTooLarge(f"The request body exceeds the limit of {max_bytes} bytes.")
    return b"".join(chunks)
