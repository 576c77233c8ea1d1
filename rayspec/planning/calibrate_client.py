"""Talks to a running application: streams with the time of every chunk, and its metrics."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import uuid4

import httpx
from prometheus_client.parser import text_string_to_metric_families

from rayspec.credentials import auth_headers
from rayspec.errors import ConfigError, Overloaded, Unavailable
from rayspec.routing.types import Lane

__all__ = ["Chunk", "Client", "Reply", "most_drafts", "sample_sum"]

_WISH: Final = {Lane.SPECULATIVE: "on", Lane.PLAIN: "off"}
# An engine that prefills many long prompts on a CPU takes minutes to say its first word.
_TIMEOUT_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of an answer: when it came, and its tokens. One chunk is one step of the engine."""

    at: float
    tokens: int


@dataclass(slots=True)
class Reply:
    """One streamed answer so far; `workload_class` and `lane` are what the application said."""

    sent: float = 0.0
    lane: str = ""
    workload_class: str = ""
    chunks: list[Chunk] = field(default_factory=list)
    prompt_tokens: int = 0
    output_tokens: int = 0
    drafted: int = 0
    done: bool = False

    @property
    def ttft_s(self) -> float:
        """Time to the first token."""
        return self.chunks[0].at - self.sent

    @property
    def ended(self) -> float:
        """When the last chunk came."""
        return self.chunks[-1].at


class Client:
    """An application under `url`; every failure is one line that says what to do."""

    def __init__(self, url: str, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.url = url.rstrip("/")
        self.requests = 0
        """Requests that a lane was to answer."""
        self._http = httpx.AsyncClient(
            base_url=self.url,
            headers=auth_headers(),
            timeout=_TIMEOUT_S,
            limits=httpx.Limits(max_connections=None),
            transport=transport,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def lanes(self) -> Mapping[str, Mapping[str, Any]]:
        """Return what `/health` says of each lane."""
        try:
            response = await self._http.get("/health", timeout=10)
        except httpx.HTTPError as error:
            raise ConfigError(
                "url",
                self.url,
                f"no application answers ({error or type(error).__name__}); start one with `serve "
                "run deployments/app.yaml`, or let `--app FILE` start it",
            ) from None
        try:
            lanes = response.json()["lanes"]
        except (ValueError, KeyError, TypeError):
            raise ConfigError("url", self.url, "what answers there is not rayspec") from None
        return dict(lanes)

    async def model(self) -> str:
        """Return the name of the served model."""
        return str((await self._json("GET", "/v1/models"))["data"][0]["id"])

    async def tokenize(self, body: Mapping[str, Any]) -> tuple[list[int], int]:
        """Return the tokens of a request's prompt, and the longest sequence the model takes."""
        wanted = {key: body[key] for key in ("model", "messages", "prompt", "tools") if key in body}
        answer = await self._json("POST", "/tokenize", wanted)
        return list(answer["tokens"]), int(answer["max_model_len"])

    async def metrics(self) -> str:
        """Return one scrape of the whole application."""
        return (await self._answer("GET", "/metrics")).text

    async def stream(
        self,
        body: Mapping[str, Any],
        *,
        lane: Lane | None = None,
        k: int | None = None,
        into: Reply | None = None,
        on_chunk: Callable[[], None] = lambda: None,
    ) -> Reply:
        """Stream one answer, `into` a reply that others may watch; `on_chunk` is told of each part.

        Without `lane` the router decides. No prefix cache is hit: what is asked again costs again.
        """
        wish: dict[str, Any] = {"speculation": _WISH[lane] if lane else "auto"}
        if k is not None:
            wish["k"] = k
        options = {"include_usage": True}
        sent = {"cache_salt": uuid4().hex, **body, "rayspec": wish}
        sent |= {"stream": True, "stream_options": options, "return_token_ids": True}
        path = "/v1/chat/completions" if "messages" in body else "/v1/completions"
        reply = into if into is not None else Reply()
        reply.sent = time.perf_counter()
        self.requests += 1
        try:
            async with self._http.stream("POST", path, json=sent) as response:
                await _accept(response, path, lane)
                reply.lane = response.headers.get("x-rayspec-lane", "")
                reply.workload_class = response.headers.get("x-rayspec-class", "")
                async for line in response.aiter_lines():
                    if line.startswith("data: ") and _read(reply, line[6:], time.perf_counter()):
                        on_chunk()
        except httpx.HTTPError as error:
            raise _lost(self.url, path, error) from None
        return reply

    async def _json(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        self.requests += 1
        return (await self._answer(method, path, body)).json()

    async def _answer(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> httpx.Response:
        try:
            response = await self._http.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise _lost(self.url, path, error) from None
        await _accept(response, path)
        return response


async def _accept(response: httpx.Response, path: str, lane: Lane | None = None) -> None:
    """Raise unless this is the answer that was asked for, from the lane that was asked."""
    if response.status_code != 200:
        await response.aread()
        refused = Overloaded if response.status_code == 429 else Unavailable
        raise refused(f"{path}: status {response.status_code}: {response.text[:300]}")
    answered = response.headers.get("x-rayspec-lane", "")
    if lane is not None and answered != lane:
        reason = response.headers.get("x-rayspec-reason", "")
        raise Unavailable(f"the {lane} lane did not answer: {answered} did ({reason})")


def _lost(url: str, path: str, error: httpx.HTTPError) -> Unavailable:
    return Unavailable(f"{url}{path}: {error or type(error).__name__}")


def _read(reply: Reply, data: str, now: float) -> bool:
    """Add a server-sent event to `reply`; return whether it brought tokens."""
    if data == "[DONE]":
        reply.done = True
        return False
    event = json.loads(data)
    if "error" in event:
        raise Unavailable(f"the stream broke: {json.dumps(event['error'])[:300]}")
    if usage := event.get("usage"):
        reply.prompt_tokens = usage["prompt_tokens"]
        reply.output_tokens = usage["completion_tokens"]
    facts = (event.get("metrics") or {}).get("speculative_decoding") or {}
    reply.drafted = facts.get("num_draft_tokens", reply.drafted)
    tokens = sum(len(choice.get("token_ids") or ()) for choice in event["choices"])
    if tokens:
        reply.chunks.append(Chunk(now, tokens))
    return tokens > 0


def most_drafts(text: str) -> int:
    """Return the most drafts per step, 0 without a draft, in a scrape: it counts by position."""
    return text.count("\nrayspec_position_drafted_tokens_total{")


def sample_sum(text: str, name: str, labels: Mapping[str, str] | None = None) -> float:
    """Return the sum of a metric's samples that carry `labels`, in a scrape."""
    lines = [line for line in text.splitlines() if line.startswith((f"{name}{{", f"{name} "))]
    wanted: Sequence[tuple[str, str]] = tuple((labels or {}).items())
    return sum(
        sample.value
        for family in text_string_to_metric_families("\n".join([*lines, ""]))
        for sample in family.samples
        if all(sample.labels.get(key) == value for key, value in wanted)
    )
