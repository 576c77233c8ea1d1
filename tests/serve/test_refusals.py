"""Bad requests get a 4xx in OpenAI's shape, whoever refuses them."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.support.application import BASE_URL, Application

pytestmark = pytest.mark.e2e

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
GOOD: dict[str, Any] = {"model": "smollm2", "messages": [{"role": "user", "content": "Hi"}]}
PROMPT: dict[str, Any] = {"model": "smollm2", "prompt": "Hi"}

CASES: dict[str, tuple[str, Any, int]] = {
    "unknown model": (CHAT, GOOD | {"model": "nope"}, 404),
    "messages of the wrong type": (CHAT, GOOD | {"messages": 3}, 400),
    "a message without a role": (CHAT, GOOD | {"messages": [{"content": "Hi"}]}, 400),
    "temperature of the wrong type": (CHAT, GOOD | {"temperature": "warm"}, 400),
    "temperature out of range": (CHAT, GOOD | {"temperature": -1}, 400),
    "n of zero": (COMPLETIONS, PROMPT | {"n": 0}, 400),
    "prompt too long": (COMPLETIONS, PROMPT | {"prompt": "word " * 3000}, 400),
    "max_tokens too large": (COMPLETIONS, PROMPT | {"max_tokens": 100_000}, 400),
    "no prompt": (COMPLETIONS, {"model": "smollm2"}, 400),
    "an invalid schema": (
        CHAT,
        GOOD
        | {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": {"type": "nonsense"}},
            }
        },
        400,
    ),
    "an unknown wish": (CHAT, GOOD | {"rayspec": {"speculation": "maybe"}}, 400),
    "an unknown field of ours": (CHAT, GOOD | {"rayspec": {"speed": 9}}, 400),
    "k of the wrong type": (CHAT, GOOD | {"rayspec": {"k": "many"}}, 400),
    "k above the maximum": (CHAT, GOOD | {"rayspec": {"k": 99}}, 400),
    "text that is not UTF-8": (COMPLETIONS, b'{"model": "smollm2", "prompt": "\xff"}', 400),
    "text that is not JSON": (COMPLETIONS, b"{", 400),
    "JSON that is no object": (COMPLETIONS, b"[]", 400),
    "a body over the limit": (COMPLETIONS, b" " * (4 * 2**20 + 1), 413),
    "an unknown path": ("/v1/nothing", GOOD, 404),
    "a class that is no name": (CHAT, GOOD | {"metadata": {"workload_class": "Ä"}}, 400),
}


@pytest.mark.parametrize("case", CASES)
def test_refusal(app: Application, case: str) -> None:
    path, body, status = CASES[case]
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = httpx.post(
        BASE_URL + path,
        content=content,
        headers={"content-type": "application/json"},
        timeout=60,
    )
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error["message"]
    assert error["type"]
    assert {"param", "code"} <= error.keys()
    for name in ("x-request-id", "x-rayspec-lane", "x-rayspec-class", "x-rayspec-reason"):
        assert len(response.headers.get_list(name)) == 1, name


def test_wrong_method(app: Application) -> None:
    response = httpx.get(BASE_URL + CHAT, timeout=60)
    assert response.status_code == 405
    assert response.json()["error"]["message"]
