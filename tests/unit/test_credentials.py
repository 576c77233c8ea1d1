from __future__ import annotations

import httpx
import pytest

from rayspec.audit.client import Client, NotVerifiable
from rayspec.credentials import API_KEY_VARIABLE, auth_headers


def test_without_a_key_nothing_is_sent() -> None:
    assert auth_headers({}) == auth_headers({API_KEY_VARIABLE: ""}) == {}


async def test_commands_send_the_key_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("authorization"))
        return httpx.Response(401, json={"error": {"message": "no"}})

    monkeypatch.setenv(API_KEY_VARIABLE, "rsk-x")
    async with Client("http://test", transport=httpx.MockTransport(answer)) as client:
        with pytest.raises(NotVerifiable):
            await client.check()
    assert set(seen) == {"Bearer rsk-x"}
