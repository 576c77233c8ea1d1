"""Streams greedy answers of a running application, and notes when each chunk came."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

__all__ = ["Client", "Reply", "read_event", "sum_samples"]


@dataclass
class Reply:
    """One streamed answer; `times` holds when its request was sent and each chunk came."""

    prompt: int
    text: str = ""
    tokens: int = 0
    finish_reason: str | None = None
    done: bool = False
    failure: str | None = None
    told: bool = False  # the failure is an error that the application itself answered
    lane: str = ""
    times: list[float] = field(default_factory=list)

    @property
    def error(self) -> str | None:
        """Why the answer is not whole; None when it is."""
        if self.failure is None and not (self.done and self.finish_reason):
            return "the stream ended before the answer"
        return self.failure

    @property
    def tpot_ms(self) -> float | None:
        """Mean time per output token after the first chunk."""
        if self.tokens < 2 or len(self.times) < 3:
            return None
        return (self.times[-1] - self.times[1]) / (self.tokens - 1) * 1e3

    @property
    def worst_gap_ms(self) -> float:
        """Longest time between two chunks."""
        gaps = [b - a for a, b in zip(self.times[1:], self.times[2:], strict=False)]
        return max(gaps, default=0.0) * 1e3


class Client:
    """Asks a running application for greedy answers, and looks at its metrics."""

    def __init__(self, url: str, prompts: Sequence[str], max_tokens: int) -> None:
        self._http = httpx.AsyncClient(base_url=url, timeout=600, limits=httpx.Limits())
        self._max_tokens = max_tokens
        self._model = ""
        self.prompts = prompts
        self.reference_wish = "on"

    async def open(self) -> None:
        """Learn the model's name, and which lane to compare with; exits without a draft."""
        models = (await self._http.get("/v1/models")).raise_for_status().json()
        self._model = models["data"][0]["id"]
        lanes = (await self._http.get("/health")).raise_for_status().json()["lanes"]
        if not lanes.get("speculative", {}).get("draft_attached"):
            sys.exit("no draft is attached: nothing to kill")
        self.reference_wish = "off" if lanes.get("plain", {}).get("replicas") else "on"

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    def _body(self, prompt: int, wish: str) -> dict[str, Any]:
        return {
            "model": self._model,
            "messages": [{"role": "user", "content": self.prompts[prompt]}],
            "temperature": 0,
            "max_tokens": self._max_tokens,
            "rayspec": {"speculation": wish},
        }

    async def stream(self, prompt: int, wish: str = "on") -> Reply:
        """Stream one answer; whatever goes wrong is told in it."""
        reply = Reply(prompt, times=[time.perf_counter()])
        body = self._body(prompt, wish) | {
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        try:
            async with self._http.stream("POST", "/v1/chat/completions", json=body) as response:
                reply.lane = response.headers.get("x-rayspec-lane", "")
                if response.status_code != 200:
                    said = await response.aread()
                    reply.failure = f"status {response.status_code}: {said!r}"
                    reply.told = b'"error"' in said
                    return reply
                async for line in response.aiter_lines():
                    if line.startswith("data: "):
                        read_event(reply, line[6:])
        except httpx.HTTPError as error:
            reply.failure = repr(error)
        return reply

    async def logprobs(self, prompt: int) -> list[dict[str, Any]]:
        """Return the tokens of the reference lane's answer, with their alternatives."""
        body = self._body(prompt, self.reference_wish) | {"logprobs": True, "top_logprobs": 5}
        answer = (await self._http.post("/v1/chat/completions", json=body)).raise_for_status()
        tokens: list[dict[str, Any]] = answer.json()["choices"][0]["logprobs"]["content"]
        return tokens

    async def metric(self, name: str) -> float:
        """Return the sum of a metric's samples."""
        text = (await self._http.get("/metrics", timeout=30)).raise_for_status().text
        return sum_samples(text, name)


def read_event(reply: Reply, data: str) -> None:
    """Add one server-sent event to `reply`."""
    if data == "[DONE]":
        reply.done = True
        return
    event = json.loads(data)
    if "error" in event:
        reply.failure, reply.told = json.dumps(event["error"]), True
        return
    if event.get("usage"):
        reply.tokens = event["usage"]["completion_tokens"]
    for choice in event["choices"]:
        if content := choice["delta"].get("content"):
            reply.text += content
            reply.times.append(time.perf_counter())
        reply.finish_reason = choice.get("finish_reason") or reply.finish_reason


def sum_samples(text: str, name: str) -> float:
    """Return the sum of a metric's samples in a Prometheus exposition."""
    lines = (line for line in text.splitlines() if line.startswith((f"{name}{{", f"{name} ")))
    return sum(float(line.rpartition(" ")[2]) for line in lines)
