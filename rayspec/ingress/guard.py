"""Stands before every route: what browsers may do, who may ask, and how much."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from ray import serve
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from rayspec.config.specs import CorsSpec
from rayspec.errors import RateLimited, RequestError
from rayspec.ingress import refusal
from rayspec.ingress.keys import KeyRing
from rayspec.telemetry.metrics import IngressMetrics

__all__ = ["Guard", "KeyCheck", "protect"]

_EXPOSED = (
    "x-request-id",
    "x-rayspec-lane",
    "x-rayspec-class",
    "x-rayspec-reason",
    "x-rayspec-predicted",
    "retry-after",
)


class KeyCheck:
    """ASGI middleware that answers 401 and 429; a request counts until its answer has ended."""

    def __init__(
        self, app: ASGIApp, ring: KeyRing, open_paths: Sequence[str], metrics: IngressMetrics
    ) -> None:
        self._app = app
        self._ring = ring
        self._open_paths = tuple(open_paths)
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what may pass."""
        if not self._ring or self._is_open(scope):
            await self._app(scope, receive, send)
            return
        try:
            lease = self._ring.admit(Headers(scope=scope).get("authorization"))
        except RequestError as error:
            known = isinstance(error, RateLimited)
            self._metrics.refused_by_key.labels("rate" if known else "key").inc()
            await refusal.respond(error)(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        finally:
            lease.release()

    def _is_open(self, scope: Scope) -> bool:
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        return any(fnmatchcase(path, pattern) for pattern in self._open_paths)


def protect(
    app: ASGIApp,
    ring: KeyRing,
    open_paths: Sequence[str],
    cors: CorsSpec | None,
    metrics: IngressMetrics,
) -> ASGIApp:
    """Return `app` behind its guards; browsers are told of other origins first, refused or not."""
    guarded: ASGIApp = KeyCheck(app, ring, open_paths, metrics)
    if cors is None:
        return guarded
    return CORSMiddleware(
        guarded,
        allow_origins=cors.allow_origins,
        allow_methods=("GET", "POST"),
        allow_headers=cors.allow_headers,
        expose_headers=_EXPOSED,
        max_age=cors.max_age_s,
    )


class Guard:
    """ASGI middleware that is in place before Serve has made the deployment which configures it.

    The replica's `Ingress` provides `protect(app)`, once.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._protected: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as the replica's ingress says."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._protected is None:
            ingress = serve.get_replica_context().servable_object
            self._protected = ingress.protect(self._app)
        await self._protected(scope, receive, send)
