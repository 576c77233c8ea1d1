"""ASGI middleware that follows every OpenAI request to the end of its answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from opentelemetry import trace

from rayspec.telemetry import journey
from rayspec.telemetry.cancelled import CANCELLED, DISCONNECTED
from rayspec.telemetry.journey import Journey

__all__ = ["RequestTelemetry"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

_FOLLOWED = frozenset(
    {"/v1/chat/completions", "/v1/completions", "/v1/models", "/tokenize", "/detokenize"}
)


class RequestTelemetry:
    """Gives every request a `Journey`; scrapes, health checks and unknown paths have none."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on, and see what became of its answer."""
        path = scope.get("path", "").removeprefix(scope.get("root_path", ""))
        if scope["type"] != "http" or path not in _FOLLOWED:
            await self._app(scope, receive, send)
            return
        headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}
        followed = Journey.begin(scope["method"], path, headers)
        journey.enter(followed)
        status: int | None = None
        whole = False

        async def watch(message: Message) -> None:
            nonlocal status, whole
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                whole = True

        with trace.use_span(followed.span, record_exception=False, set_status_on_exception=False):
            try:
                await self._app(scope, receive, watch)
            except CANCELLED:
                followed.close(status, None if whole else DISCONNECTED)
                raise
            except Exception as error:
                # What Starlette makes of it has not passed here.
                followed.close(status or 500, type(error).__name__)
                raise
            # An application whose client left ends its answer in the middle, and returns.
            followed.close(status, None if whole else DISCONNECTED)
