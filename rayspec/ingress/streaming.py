"""The response of a relayed stream, which always ends what feeds it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

__all__ = ["RelayedStream"]


class RelayedStream(StreamingResponse):
    """Closes `body` however sending it ends.

    A client may leave before the first part is asked for. Closing a generator that was never begun
    runs nothing of it, so `unread` is awaited instead.
    """

    def __init__(
        self,
        body: AsyncGenerator[bytes, None],
        status_code: int,
        unread: Callable[[], Awaitable[None]],
    ) -> None:
        self._begun = False
        self._parts = self._noting(body)
        self._unread = unread
        super().__init__(self._parts, status_code=status_code)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._parts.aclose()
            if not self._begun:
                await self._unread()

    async def _noting(self, body: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        self._begun = True
        async with aclosing(body) as parts:
            async for part in parts:
                yield part
