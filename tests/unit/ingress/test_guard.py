from __future__ import annotations

from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from rayspec.config.specs import CorsSpec
from rayspec.ingress.guard import protect
from rayspec.ingress.keys import ApiKey, KeyRing, digest
from rayspec.telemetry.metrics import IngressMetrics
from tests.support.clock import Clock

KEY = "rsk-one"
AUTH = {"authorization": f"Bearer {KEY}"}
ORIGIN = {"origin": "https://chat.example.com"}


async def _ok(request: Request) -> Response:
    return PlainTextResponse("ok")


async def _broken(request: Request) -> Response:
    async def body() -> Any:
        yield b"a"
        raise ValueError("broken")

    return StreamingResponse(body())


class Bench:
    def __init__(
        self,
        *keys: ApiKey,
        open_paths: tuple[str, ...] = ("/health",),
        cors: CorsSpec | None = None,
    ) -> None:
        names = ("/health", "/metrics", "/ui/app.js", "/v1/models", "/v1/chat/completions")
        routes = [Route(name, _ok, methods=["GET", "POST"]) for name in names]
        app = Starlette(routes=[*routes, Route("/broken", _broken)])
        self.metrics = IngressMetrics()
        self.ring = KeyRing(keys, 1, Clock())
        self._app = protect(app, self.ring, open_paths, cors, self.metrics)

    async def ask(self, path: str, method: str = "GET", **headers: str) -> httpx.Response:
        transport = httpx.ASGITransport(self._app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, headers=headers)

    def refused(self, cause: str) -> float:
        sample = self.metrics.registry.get_sample_value
        return sample("rayspec_refused_keys_total", {"cause": cause}) or 0.0


def one(**limits: Any) -> ApiKey:
    return ApiKey("one", digest(KEY), **limits)


async def test_without_keys_everyone_may_ask() -> None:
    assert (await Bench().ask("/v1/models")).status_code == 200


async def test_with_keys_only_open_paths_need_none() -> None:
    bench = Bench(one(), open_paths=("/health", "/ui*"))
    assert (await bench.ask("/health")).status_code == 200
    assert (await bench.ask("/ui/app.js")).status_code == 200
    for path in ("/metrics", "/v1/models", "/nothing"):
        answer = await bench.ask(path)
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == "invalid_api_key"
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.headers["x-rayspec-reason"] == "refused 401"
    assert (await bench.ask("/v1/models", **AUTH)).status_code == 200
    assert bench.refused("key") == 3


async def test_a_limit_is_a_429_that_says_when_to_come_back() -> None:
    bench = Bench(one(requests_per_minute=1))
    assert (await bench.ask("/v1/models", **AUTH)).status_code == 200
    answer = await bench.ask("/v1/models", **AUTH)
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "60"
    assert answer.json()["error"]["type"] == "RateLimitError"
    assert bench.refused("rate") == 1


async def test_a_request_counts_until_its_answer_ended_however_it_did() -> None:
    bench = Bench(one(concurrent_requests=1))
    for path in ("/broken", "/v1/models", "/nothing", "/broken", "/v1/models"):
        assert (await bench.ask(path, **AUTH)).status_code != 429


async def test_browsers_are_told_nothing_unless_configured() -> None:
    answer = await Bench().ask("/v1/models", **ORIGIN)
    assert "access-control-allow-origin" not in answer.headers


async def test_configured_origins_may_ask_and_see_refusals() -> None:
    cors = CorsSpec((ORIGIN["origin"],), ("Authorization", "Content-Type"), 60)
    bench = Bench(one(), cors=cors)
    ask = ORIGIN | {
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }
    preflight = await bench.ask("/v1/chat/completions", "OPTIONS", **ask)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == ORIGIN["origin"]
    assert preflight.headers["access-control-max-age"] == "60"
    refused = await bench.ask("/v1/models", **ORIGIN)
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == ORIGIN["origin"]
    served = await bench.ask("/v1/models", **ORIGIN, **AUTH)
    assert "x-rayspec-lane" in served.headers["access-control-expose-headers"].lower()
    other = await bench.ask("/v1/models", origin="https://evil.example.com", **AUTH)
    assert "access-control-allow-origin" not in other.headers
