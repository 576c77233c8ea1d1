"""Clients that leave, lanes that are full, drafts that die."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from tests.support.application import BASE_URL, Application

pytestmark = pytest.mark.e2e

URL = f"{BASE_URL}/v1/chat/completions"
# What app.yaml lets wait for one lane, and run in it.
WAITING, RUNNING = 32, 16


def story(speculation: str, tokens: int, **more: Any) -> dict[str, Any]:
    return {
        "model": "smollm2",
        "messages": [{"role": "user", "content": "Count from one to five hundred in words."}],
        "temperature": 0,
        "max_tokens": tokens,
        "ignore_eos": True,
        "rayspec": {"speculation": speculation},
    } | more


BUSY = {
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "rayspec_draft_server_sequences",
    "rayspec_in_flight",
}


def idle(app: Application) -> bool:
    return not any(sample.value for sample in app.metrics() if sample.name in BUSY)


def left(app: Application, lane: str) -> int:
    """Return of how many calls the lane's engine has said that their client left."""
    return app.printed().count(f"call lane={lane} ended=disconnected")


@pytest.mark.parametrize(("speculation", "lane"), [("on", "speculative"), ("off", "plain")])
def test_disconnect_frees_target_and_draft(app: Application, speculation: str, lane: str) -> None:
    before, body = left(app, lane), story(speculation, 1800, stream=True)
    with httpx.stream("POST", URL, json=body, timeout=60) as response:
        # Held on to, because dropping the iterator would already close the connection.
        lines = response.iter_lines()
        for _ in range(8):
            next(lines)
    # From the log, not from a scrape: while engines compute, a scrape on two cores takes seconds.
    app.wait_for(lambda: left(app, lane) > before, 30)
    app.wait_for(lambda: idle(app), 30)


def test_disconnect_before_a_whole_answer_frees_the_engine(app: Application) -> None:
    before = left(app, "speculative")
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(URL, json=story("on", 1800), timeout=3)
    app.wait_for(lambda: left(app, "speculative") > before, 30)
    app.wait_for(lambda: idle(app), 30)


async def test_overload_is_a_429_and_nothing_else_is_lost(app: Application) -> None:
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=240, limits=limits) as client:
        many = [client.post(URL, json=story("off", 8)) for _ in range(WAITING + RUNNING + 24)]
        responses = await asyncio.gather(*many)
    statuses = [response.status_code for response in responses]
    assert set(statuses) == {200, 429}
    # Serve counts a request as waiting until a replica took it, which all at once takes a while.
    assert statuses.count(200) > WAITING
    for response in responses:
        if response.status_code == 429:
            assert int(response.headers["retry-after"]) >= 1
            assert response.json()["error"]["type"] == "RateLimitError"
        else:
            assert response.json()["usage"]["completion_tokens"] == 8


def test_busy_lanes_are_weighed_by_what_the_engines_measured(app: Application) -> None:
    async def load() -> httpx.Response:
        async with httpx.AsyncClient(timeout=120) as client:
            busy = [asyncio.create_task(client.post(URL, json=story("on", 64))) for _ in range(10)]
            await asyncio.sleep(2)
            answer = await client.post(URL, json=story("auto", 32))
            assert all(r.status_code == 200 for r in await asyncio.gather(*busy))
            return answer

    assert httpx.post(URL, json=story("off", 48), timeout=120).status_code == 200
    asyncio.run(load())  # so that the engines know their step times, under load and without
    answer = asyncio.run(load())
    # The lanes share this machine: either all are quicker in one lane, or both are to work.
    rule, lane = answer.headers["x-rayspec-reason"].split(" ")[:2]
    assert rule in ("together", "faster", "steady")
    assert answer.headers["x-rayspec-lane"] == lane


def test_draft_killed_in_the_middle_changes_nothing(app: Application) -> None:
    tokens = 160
    whole = httpx.post(URL, json=story("off", tokens), timeout=240).json()
    expected = whole["choices"][0]["message"]["content"]
    attaches = app.metric("rayspec_link_attaches_total")
    (victim,) = app.draft_processes()

    text, killed = "", False
    body = story("on", tokens, stream=True)
    with httpx.stream("POST", URL, json=body, timeout=240) as response:
        assert response.headers["x-rayspec-lane"] == "speculative"
        for line in response.iter_lines():
            if not line.startswith("data: {"):
                continue
            choice = json.loads(line[6:])["choices"][0]
            text += choice["delta"].get("content") or ""
            if not killed and len(text) > len(expected) // 4:
                victim.kill()
                killed = True
    assert killed
    assert text == expected

    app.wait_for(lambda: app.metric("rayspec_link_attaches_total") > attaches, 60)
    app.wait_for(app.complete, 30)
    (successor,) = app.draft_processes()
    assert successor.pid != victim.pid
    drafted = app.metric("rayspec_drafted_tokens_total")
    again = httpx.post(URL, json=story("on", 100), timeout=240).json()
    assert expected.startswith(again["choices"][0]["message"]["content"])
    assert app.metric("rayspec_drafted_tokens_total") > drafted


def test_detached_lane_is_known_to_the_router(app: Application) -> None:
    (victim,) = app.draft_processes()
    victim.suspend()
    try:
        app.wait_for(lambda: not app.complete(), 30)
        answer = httpx.post(URL, json=story("auto", 4), timeout=60)
        assert answer.headers["x-rayspec-lane"] == "plain"
        assert answer.headers["x-rayspec-reason"].startswith("detached")
        forced = httpx.post(URL, json=story("on", 4), timeout=60)
        assert forced.status_code == 200
    finally:
        victim.resume()
    app.wait_for(app.complete, 120)
