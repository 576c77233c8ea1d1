"""Reads a request body up to a limit."""

from __future__ import annotations

from starlette.requests import Request

from rayspec.errors import PayloadTooLarge

__all__ = ["read_body"]


async def read_body(request: Request, max_bytes: int) -> bytes:
    """Return the body; raises `PayloadTooLarge` as soon as it exceeds `max_bytes`."""
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
