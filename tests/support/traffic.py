"""Clients that ask all the time, and remember every answer that was not a whole one."""

from __future__ import annotations

import itertools
import json
import threading
from collections import Counter
from types import TracebackType
from typing import Any, Self

import httpx

from tests.support.application import BASE_URL

URL = f"{BASE_URL}/v1/chat/completions"
_SPECULATION = ("on", "off", "auto")
_TOKENS = (4, 16, 40)
_JOIN_S = 240.0


def body(tokens: int, speculation: str = "auto", **more: Any) -> dict[str, Any]:
    return {
        "model": "smollm2",
        "messages": [{"role": "user", "content": "Count from one to five hundred in words."}],
        "max_tokens": tokens,
        "ignore_eos": True,
        "rayspec": {"speculation": speculation},
    } | more


def clients() -> httpx.Client:
    """Return what asks for many clients: each request has a connection of its own."""
    # One for all: making one takes a processor longer than the requests that it is for.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    return httpx.Client(timeout=_JOIN_S, limits=limits)


def failure(client: httpx.Client, request: dict[str, Any]) -> str | None:
    """Ask; return what was wrong with the answer."""
    try:
        if not request.get("stream"):
            response = client.post(URL, json=request)
            tokens = response.json()["usage"]["completion_tokens"] if response.is_success else 0
            return None if tokens == request["max_tokens"] else f"{response}: {response.text}"
        with client.stream("POST", URL, json=request) as response:
            events = [line[6:] for line in response.iter_lines() if line.startswith("data: ")]
        finishes = [
            choice["finish_reason"]
            for event in events
            if event.startswith("{")
            for choice in json.loads(event).get("choices", ())
        ]
        whole = "length" in finishes and events[-1:] == ["[DONE]"]
        return None if whole else f"{response}: {events[-3:]}"
    except Exception as error:  # a client sees a lost connection, too
        return repr(error)


class Traffic:
    """Short answers by `users` at once, and `long` streams that began before anything else.

    Users wait `pause_s` after each answer.
    """

    def __init__(
        self, users: int = 4, long: int = 2, long_tokens: int = 600, pause_s: float = 0.0
    ) -> None:
        self._pause_s = pause_s
        self.answered: Counter[str] = Counter()
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._client = clients()
        self._threads = [threading.Thread(target=self._user, args=(user,)) for user in range(users)]
        self._threads += [
            threading.Thread(target=self._ask, args=("long", body(long_tokens, lane, stream=True)))
            for lane in itertools.islice(itertools.cycle(("on", "off")), long)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(_JOIN_S)
        self._client.close()

    def _user(self, number: int) -> None:
        for turn in itertools.count(number):
            if self._stop.is_set():
                return
            tokens, lane = _TOKENS[turn % 3], _SPECULATION[turn // 3 % 3]
            self._ask("short", body(tokens, lane, stream=turn % 2 == 0))
            self._stop.wait(self._pause_s)

    def _ask(self, kind: str, request: dict[str, Any]) -> None:
        wrong = failure(self._client, request)
        if wrong is None:
            self.answered[kind] += 1
        else:
            self.failures.append(wrong)
