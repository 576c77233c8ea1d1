"""A server that speaks as a running application does, over a model of sixteen tokens.

Its speculative lane can be given faults that the real one must never have.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from rayspec.audit.prompts import COMPARED
from rayspec.routing.types import Lane

__all__ = ["TwoLanes"]

VOCABULARY, END = 16, 15
# Log-probabilities of the likeliest tokens, in the order in which `likely` lists them.
LOGPROBS = (-0.7, -1.6, -2.1, -2.6)


def likely(tokens: Sequence[int]) -> list[int]:
    """Return the likeliest next tokens: a function of the last two."""
    start = (3 * tokens[-1] + tokens[-2]) % END
    return [(start + n) % END for n in range(len(LOGPROBS))]


@dataclass
class TwoLanes:
    """The server, and what is wrong with it.

    `wrong_at` is an output position where the speculative lane takes the second token, `gap` how
    far the model has it behind the first; `greed` the share of its samples that follow the draft.
    """

    wrong_at: int | None = None
    gap: float = 0.9
    ends_at: int | None = None
    greed: float = 0.0
    drafting: bool = True
    attached: bool = True
    replicas: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COMPARED, 1))
    answers_in: dict[str, str] = field(default_factory=lambda: {lane: lane for lane in COMPARED})
    full: int = 0
    seeds: set[int] = field(default_factory=set)
    named: set[str] = field(default_factory=set)
    url: str = ""

    def __enter__(self) -> Self:
        routes = [
            Route("/health", self._health),
            Route("/v1/models", self._models),
            Route("/v1/chat/completions", self._generate, methods=["POST"]),
            Route("/v1/completions", self._generate, methods=["POST"]),
            Route("/detokenize", self._detokenize, methods=["POST"]),
        ]
        config = uvicorn.Config(Starlette(routes=routes), port=0, log_level="error", ws="none")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.005)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()

    async def _health(self, _: Request) -> Response:
        lanes: dict[str, Any] = {lane: {"replicas": n} for lane, n in self.replicas.items()}
        if "speculative" in lanes:
            lanes["speculative"]["draft_attached"] = self.attached
        return JSONResponse({"status": "ok", "lanes": lanes})

    async def _models(self, _: Request) -> Response:
        return JSONResponse({"data": [{"id": "sixteen"}]})

    async def _detokenize(self, request: Request) -> Response:
        tokens = (await request.json())["tokens"]
        return JSONResponse({"prompt": "".join(chr(ord("a") + token) for token in tokens)})

    async def _generate(self, request: Request) -> Response:
        body = await request.json()
        if self.full:
            self.full -= 1
            return JSONResponse({}, 429, {"retry-after": "0"})
        lane = Lane.SPECULATIVE if body["rayspec"]["speculation"] == "on" else Lane.PLAIN
        self.named |= {body["rayspec"]["lane"]} if "lane" in body["rayspec"] else set()
        headers = {
            "x-rayspec-lane": self.answers_in[lane],
            "x-rayspec-class": request.headers.get("x-workload-class", "chat"),
            "x-rayspec-reason": "override",
        }
        if not body.get("stream"):
            return self._probe(body, headers)
        prompt = _tokens(body)
        told = self._answer(prompt, body, lane)
        return StreamingResponse(
            _events(prompt, told, drafted=lane is Lane.SPECULATIVE and self.drafting),
            media_type="text/event-stream",
            headers=headers,
        )

    def _probe(self, body: dict[str, Any], headers: dict[str, str]) -> Response:
        if body["logprobs"] > len(LOGPROBS) + 1:
            return JSONResponse({"error": {"message": "too many logprobs"}}, 400, headers)
        tokens = body["prompt"]
        levels = [LOGPROBS[0], LOGPROBS[0] - self.gap, *LOGPROBS[2:]]
        top = {f"token_id:{t}": level for t, level in zip(likely(tokens), levels, strict=True)}
        return JSONResponse({"choices": [{"logprobs": {"top_logprobs": [top]}}]}, 200, headers)

    def _answer(self, prompt: list[int], body: dict[str, Any], lane: Lane) -> list[int]:
        ours = lane is Lane.SPECULATIVE
        length = body["max_tokens"]
        if ours and self.ends_at is not None and not body["temperature"]:
            length = min(length, self.ends_at)
        rng = random.Random(body.get("seed"))
        if "seed" in body:
            self.seeds.add(body["seed"])
        follows = ours and rng.random() < self.greed
        tokens = list(prompt)
        for at in range(length):
            options = likely(tokens)
            if body["temperature"] and not follows:
                tokens += rng.choices(options, [2.0, 1.0, 0.6, 0.4])
            else:
                tokens.append(options[int(ours and at == self.wrong_at)])
        return tokens[len(prompt) :]


def _tokens(body: dict[str, Any]) -> list[int]:
    asked = body["messages"][-1]["content"] if "messages" in body else body["prompt"]
    return [ord(char) % END for char in str(asked)][-8:]


async def _events(prompt: list[int], told: list[int], *, drafted: bool) -> AsyncIterator[str]:
    def event(**facts: Any) -> str:
        return f"data: {json.dumps(facts)}\n\n"

    yield event(choices=[{"index": 0, "delta": {"role": "assistant"}}], prompt_token_ids=prompt)
    for at in range(0, len(told), 2):
        end = "length" if at + 2 >= len(told) else None
        yield event(choices=[{"index": 0, "token_ids": told[at : at + 2], "finish_reason": end}])
    steps = {"num_draft_tokens": len(told), "num_accepted_draft_tokens": len(told) // 2}
    metrics = {"speculative_decoding": steps} if drafted else None
    yield event(choices=[], usage={"completion_tokens": len(told)}, metrics=metrics)
    yield "data: [DONE]\n\n"
