"""Keys, limits, timeouts, and deployments that change under load without a failed request.

Changing the application replaces every replica, which on two cores takes over a minute. It is not
changed back: what these tests leave has short timeouts, and is for the last module of this folder.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from typing import Any

import httpx
import pytest

from rayspec.ingress.keys import digest, new_key
from tests.support.application import BASE_URL, Application
from tests.support.traffic import URL, Traffic, body, clients

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

ORIGIN = "https://chat.example.com"
REQUEST_TIMEOUT_S, FIRST_TOKEN_TIMEOUT_S = 30.0, 10.0
SEATS = 16  # sequences of one engine in app.yaml
CHANGES: dict[str, Any] = {
    "ingress": {
        "request_timeout_s": REQUEST_TIMEOUT_S,
        "first_token_timeout_s": FIRST_TOKEN_TIMEOUT_S,
        "body_timeout_s": 10,
        "cors": {"allow_origins": [ORIGIN]},
    },
}
AUTOSCALING = {
    "max_replicas": 2,
    "target_sequences": 4,
    "look_back_period_s": 12,
    "upscale_delay_s": 2,
    "downscale_delay_s": 10,
}


def steady(states: dict[str, dict[str, str]]) -> bool:
    # While Serve builds the application it tells of no deployment.
    return bool(states) and all(set(each.values()) == {"RUNNING"} for each in states.values())


def replaced(app: Application, before: dict[str, dict[str, str]]) -> bool:
    now = app.replicas()
    return (
        now.keys() == before.keys()
        and steady(now)
        and all(not before[name].keys() & now[name].keys() for name in now)
    )


@pytest.fixture(scope="module")
def changed(app: Application) -> Application:
    """Deploy a change under load: all is answered, streams that began before it too."""
    config = deepcopy(app.config())
    args = config["applications"][0]["args"]
    args |= CHANGES
    args["plain"]["autoscaling"] = AUTOSCALING
    before = app.replicas()
    # Users that never paused would leave little of two cores to the engines that start.
    with Traffic(long=2, pause_s=0.5) as traffic:
        app.wait_for(lambda: traffic.answered["short"] > 2, 60)
        app.deploy(config)
        app.wait_for(lambda: replaced(app, before), 400)
        answered = traffic.answered["short"]
        app.wait_for(app.complete, 60)
        app.wait_for(lambda: traffic.answered["short"] > answered + 4, 60)
    assert not traffic.failures
    assert traffic.answered["long"] == 2
    assert answered > 4
    return app


def test_keys_change_without_a_restart(app: Application) -> None:
    key, config = new_key(), app.config()
    entry = {"name": "one", "sha256": digest(key).hex(), "concurrent_requests": 2}
    config["applications"][0]["deployments"] = [
        {"name": "Ingress", "user_config": {"api_keys": [entry]}}
    ]
    before = app.replicas()
    assert steady(before)
    auth = {"authorization": f"Bearer {key}"}

    def models(**headers: str) -> httpx.Response:
        return httpx.get(f"{BASE_URL}/v1/models", headers=headers, timeout=30)

    try:
        app.deploy(config)
        app.wait_for(lambda: models().status_code == 401, 30)
        assert models(authorization="Bearer wrong").json()["error"]["code"] == "invalid_api_key"
        assert models(**auth).status_code == 200
        assert app.health() is not None
        # The page is shown to everyone, and asks for a key to be filled.
        assert httpx.get(f"{BASE_URL}/ui", timeout=30).status_code == 200
        assert httpx.get(f"{BASE_URL}/ui/state", timeout=30).status_code == 401
        assert httpx.get(f"{BASE_URL}/ui/state", headers=auth, timeout=30).status_code == 200
        assert httpx.get(f"{BASE_URL}/openapi.json", headers=auth).json()["components"][
            "securitySchemes"
        ]

        def ask(_: int) -> httpx.Response:
            return httpx.post(URL, json=body(64), headers=auth, timeout=60)

        with ThreadPoolExecutor(5) as pool:
            answers = list(pool.map(ask, range(5)))
        assert sorted(answer.status_code for answer in answers) == [200, 200, 429, 429, 429]
        assert all(a.headers["retry-after"] == "1" for a in answers if a.status_code == 429)
        assert app.metric("rayspec_refused_keys_total", cause="rate") == 3
        assert ask(0).status_code == 200
    finally:
        app.deploy(app.config())
    app.wait_for(lambda: models().status_code == 200, 30)
    assert {n: set(r) for n, r in app.replicas().items()} == {n: set(r) for n, r in before.items()}
    assert key not in app.tail()


def test_a_change_under_load_fails_no_request(changed: Application) -> None:
    answer = httpx.get(f"{BASE_URL}/v1/models", headers={"origin": ORIGIN}, timeout=30)
    assert answer.headers["access-control-allow-origin"] == ORIGIN


def test_a_body_that_does_not_come_is_a_408(changed: Application) -> None:
    head = "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{"
    with socket.create_connection(("127.0.0.1", 8000), timeout=20) as connection:
        connection.send(head.encode())
        assert b" 408 " in connection.recv(4096).split(b"\r\n")[0]


def test_what_is_not_answered_in_time_leaves_the_engine(changed: Application) -> None:
    def whole() -> httpx.Response:
        return client.post(URL, json=body(1900, "off"))

    def stream(_: int) -> httpx.Response:
        return client.post(URL, json=body(1900, "on", stream=True))

    with clients() as client, ThreadPoolExecutor(SEATS + 5) as pool:
        one = pool.submit(whole)
        streams = list(pool.map(stream, range(SEATS + 4)))
    assert one.result().status_code == 504
    assert "not answered within 30 seconds" in one.result().json()["error"]["message"]
    # Those that found no seat were told before anything else; the others had begun.
    late = [answer for answer in streams if answer.status_code == 504]
    begun = [answer for answer in streams if answer.status_code == 200]
    assert len(late) >= 4, streams
    assert begun
    assert len(late) + len(begun) == len(streams)
    assert all("no token within 10 seconds" in a.json()["error"]["message"] for a in late)
    for answer in begun:
        assert "not answered within 30 seconds" in answer.text
        assert answer.text.endswith("data: [DONE]\n\n")
    changed.wait_for(lambda: changed.metric("vllm:num_requests_running") == 0, 15)
    assert changed.metric("vllm:num_requests_waiting") == 0


async def test_engines_come_and_go_with_the_load(changed: Application) -> None:
    def engines() -> list[str]:
        return sorted(changed.replicas()["PlainTarget"].values())

    async def reach(condition: Callable[[], bool], timeout_s: float) -> None:
        await asyncio.to_thread(changed.wait_for, condition, timeout_s)

    async def user(client: httpx.AsyncClient) -> None:
        # Too long to end in time: a client that the busy machine delays leaves no gap in the load.
        while True:
            await client.post(URL, json=body(1900, "off"))

    await reach(lambda: engines() == ["RUNNING"], 90)
    async with httpx.AsyncClient(timeout=120, limits=httpx.Limits(max_connections=None)) as client:
        users = [asyncio.create_task(user(client)) for _ in range(12)]
        try:
            await reach(lambda: engines() == ["RUNNING", "RUNNING"], 200)
            await reach(lambda: (changed.health() or {})["plain"]["replicas"] == 2, 30)
        finally:
            for each in users:  # they leave, and do not wait for their answers
                each.cancel()
            ended = await asyncio.gather(*users, return_exceptions=True)
    assert all(isinstance(each, asyncio.CancelledError) for each in ended), ended
    await reach(lambda: engines() == ["RUNNING"], 120)
