"""Asks one lane of a running application, and makes sure that this lane answered."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import httpx

from rayspec.audit.prompts import COMPARED, COMPLETIONS, Prompt
from rayspec.credentials import auth_headers
from rayspec.errors import RayspecError
from rayspec.routing.types import Lane

__all__ = ["Answer", "Client", "NotVerifiable"]

# What vLLM's `max_logprobs` allows by default, and what OpenAI's completions do.
_TOP = (20, 5, 1)
_PATIENCE = 20
# A router polls its lanes as often.
WAIT_S = 1.0


class NotVerifiable(RayspecError):
    """The application cannot be compared: it is not there, or one of its lanes is not."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of one lane: its tokens, when they came, and the drafts behind them."""

    lane: Lane
    workload_class: str
    prompt_tokens: tuple[int, ...]
    tokens: tuple[int, ...]
    finish_reason: str
    ttft_s: float
    e2e_s: float
    drafted: int = 0
    accepted: int = 0

    @property
    def tpot_s(self) -> float | None:
        """Mean time per output token after the first; None for a single token."""
        if len(self.tokens) < 2:
            return None
        return (self.e2e_s - self.ttft_s) / (len(self.tokens) - 1)


@dataclass(slots=True)
class _Stream:
    """What has been read of an answer so far."""

    prompt_tokens: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    finish_reason: str | None = None
    first: float | None = None
    last: float = 0.0
    drafts: Mapping[str, Any] = field(default_factory=dict)
    done: bool = False

    def read(self, data: str, now: float) -> None:
        """Take up one server-sent event."""
        if data == "[DONE]":
            self.done = True
            return
        event = json.loads(data)
        if "error" in event:
            raise NotVerifiable(f"an answer failed: {json.dumps(event['error'])[:500]}")
        self.drafts = (event.get("metrics") or {}).get("speculative_decoding") or self.drafts
        self.prompt_tokens = event.get("prompt_token_ids") or self.prompt_tokens
        for choice in event["choices"]:
            self.prompt_tokens = choice.get("prompt_token_ids") or self.prompt_tokens
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
            if ids := choice.get("token_ids"):
                self.tokens += ids
                self.last = now
                self.first = now if self.first is None else self.first


class Client:
    """A connection to a running application; use it as an asynchronous context manager."""

    def __init__(self, url: str, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        limits = httpx.Limits(max_connections=None)
        self._http = httpx.AsyncClient(
            base_url=url, headers=auth_headers(), timeout=600, limits=limits, transport=transport
        )
        self.url = url
        self.models: Sequence[str] = ()
        self._by_name = False  # whether lanes have to be asked for by name

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def check(self) -> None:
        """Learn the served models; raises `NotVerifiable` unless both lanes and a draft are there.

        A lane may be between two reports of its state, so a missing one is looked for again.
        """
        for last in (False, False, True):
            health = await self._json("GET", "/health")
            problem = _problem(health.get("lanes", {}))
            if problem is None:
                break
            if last:
                raise NotVerifiable(f"{self.url}: {problem}")
            await asyncio.sleep(WAIT_S)
        self._by_name = Lane.ALTERNATIVE in health["lanes"]
        served = await self._json("GET", "/v1/models")
        self.models = [model["id"] for model in served.get("data", [])]
        if not self.models:
            raise NotVerifiable(f"{self.url} serves no model")

    async def ask(self, prompt: Prompt, lane: Lane, max_tokens: int, **settings: Any) -> Answer:
        """Return the answer of `lane`; raises `NotVerifiable` if another lane gave it."""
        body = prompt.payload(lane, self.models, max_tokens, **settings)
        if self._by_name:
            body["rayspec"]["lane"] = lane
        headers = {"x-workload-class": prompt.workload_class} if prompt.workload_class else {}
        for _ in range(_PATIENCE):
            begun = time.perf_counter()
            stream = _Stream()
            try:
                async with self._http.stream(
                    "POST", prompt.path, json=body, headers=headers
                ) as response:
                    if response.status_code == 429:
                        await asyncio.sleep(_retry_after(response))
                        continue
                    await _must_be(response, prompt, lane)
                    async for line in response.aiter_lines():
                        if line.startswith("data: "):
                            stream.read(line[6:], time.perf_counter())
            except httpx.HTTPError as error:
                raise NotVerifiable(f"{self.url}: {error!r}") from error
            return _answer(stream, lane, response.headers, begun, prompt)
        raise NotVerifiable(f"{self.url}: the {lane} lane stayed full (status 429)")

    async def likeliest(self, tokens: Sequence[int], prompt: Prompt) -> Mapping[int, float]:
        """Return log-probabilities of the likeliest tokens after `tokens`, in the plain lane.

        Empty where they cannot be had.
        """
        model = prompt.body.get("model")
        body = {
            "model": model if model in self.models else self.models[0],
            "prompt": list(tokens),
            "max_tokens": 1,
            "temperature": 0,
            "return_tokens_as_token_ids": True,
            "rayspec": {"speculation": "off"},
        }
        for top in _TOP:
            response = await self._call("POST", COMPLETIONS, body | {"logprobs": top})
            if response.status_code != 400:
                break
        _expect_lane(response, Lane.PLAIN)
        if response.status_code != 200:
            return {}
        listed = response.json()["choices"][0]["logprobs"]["top_logprobs"][0]
        return {int(name.removeprefix("token_id:")): value for name, value in listed.items()}

    async def text(self, tokens: Sequence[int]) -> str:
        """Return what `tokens` say."""
        if not tokens:
            return ""
        body = {"model": self.models[0], "tokens": list(tokens)}
        return str((await self._json("POST", "/detokenize", body)).get("prompt", ""))

    async def _call(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """Return an answer that may say what is wrong; only a full lane is asked again."""
        try:
            for _ in range(_PATIENCE):
                response = await self._http.request(method, path, json=body)
                if response.status_code != 429:
                    return response
                await asyncio.sleep(_retry_after(response))
        except httpx.HTTPError as error:
            raise NotVerifiable(f"nothing answers at {self.url}: {error!r}") from error
        raise NotVerifiable(f"{self.url}{path} stayed full (status 429)")

    async def _json(self, method: str, path: str, body: Any = None) -> Any:
        response = await self._call(method, path, body)
        try:
            if response.status_code != 503:  # of an application that is starting; it says how far
                response.raise_for_status()
            return response.json()
        except (httpx.HTTPError, ValueError) as error:
            raise NotVerifiable(f"{self.url}{path} is not rayspec's: {error}") from error


def _retry_after(response: httpx.Response) -> float:
    return float(response.headers.get("retry-after", 1))


def _problem(lanes: Mapping[str, Any]) -> str | None:
    for lane in COMPARED:
        if not lanes.get(lane, {}).get("replicas"):
            return f"no replica of the {lane} lane reports, and both lanes are compared"
    if not lanes[Lane.SPECULATIVE].get("draft_attached"):
        return "no draft is attached to the speculative lane, so there is nothing to verify"
    return None


async def _must_be(response: httpx.Response, prompt: Prompt, lane: Lane) -> None:
    if response.status_code != 200:
        told = (await response.aread()).decode(errors="replace")[:500]
        raise NotVerifiable(f"request {prompt.number}: status {response.status_code}: {told}")
    _expect_lane(response, lane)


def _expect_lane(response: httpx.Response, lane: Lane) -> None:
    told = response.headers.get("x-rayspec-lane")
    if told != lane:
        reason = response.headers.get("x-rayspec-reason", "no reason given")
        raise NotVerifiable(f"the {lane} lane was asked and {told or 'none'} answered: {reason}")


def _answer(
    stream: _Stream, lane: Lane, headers: httpx.Headers, begun: float, prompt: Prompt
) -> Answer:
    if not stream.done or stream.finish_reason is None:
        raise NotVerifiable(f"request {prompt.number}: the stream ended before the answer")
    if stream.first is None or not stream.prompt_tokens:
        raise NotVerifiable(f"request {prompt.number}: the answer came without its token ids")
    return Answer(
        lane,
        headers["x-rayspec-class"],
        tuple(stream.prompt_tokens),
        tuple(stream.tokens),
        stream.finish_reason,
        stream.first - begun,
        stream.last - begun,
        stream.drafts.get("num_draft_tokens", 0),
        stream.drafts.get("num_accepted_draft_tokens", 0),
    )
