"""A steady small load on both lanes of the running application, of several classes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from tests.support.application import BASE_URL

__all__ = ["TEXTS", "both_lanes"]

# Texts that repeat themselves, so that prompt lookup has something to find.
TEXTS = {
    "chat": "Say the word river again and again, please: river, river, river, river,",
    "code": "Repeat this line of code ten times:\nprint('hello')\nprint('hello')\nprint('hello')",
    "summarize": "Repeat the list. One apple, two pears, three plums. One apple, two pears,",
}


@contextmanager
def both_lanes(tokens: int = 32, pause_s: float = 0.0) -> Iterator[None]:
    """Ask in both lanes, and where the router says, until the block ends.

    Four users wait `pause_s` after each answer: without, they leave a small machine to nobody else.
    Raises if a request was not answered.
    """
    stop, wrong = threading.Event(), list[str]()

    def ask(speculation: str, name: str) -> None:
        with httpx.Client(base_url=BASE_URL, timeout=120) as client:
            while not stop.is_set():
                body = {
                    "model": "smollm2",
                    "messages": [{"role": "user", "content": TEXTS[name]}],
                    "max_tokens": tokens,
                    "temperature": 0,
                    "rayspec": {"speculation": speculation},
                }
                headers = {"x-workload-class": name}
                answer = client.post("/v1/chat/completions", json=body, headers=headers)
                if answer.status_code != 200:
                    wrong.append(answer.text)
                stop.wait(pause_s)

    users = [
        threading.Thread(target=ask, args=user)
        for user in (("on", "chat"), ("off", "chat"), ("auto", "code"), ("auto", "summarize"))
    ]
    for user in users:
        user.start()
    try:
        yield
    finally:
        stop.set()
        for user in users:
            user.join()
    assert not wrong, wrong
