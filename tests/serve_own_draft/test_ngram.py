"""`serve run deployments/engine-ngram.yaml`: drafts without a draft deployment, all the way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.application import BASE_URL, Application

pytestmark = pytest.mark.e2e

# One that prompt lookup is good at, and one that it is not.
TEXTS = {
    "code": "Repeat this line of code ten times:\nprint('hello')\nprint('hello')\nprint('hello')",
    "creative": "Write a poem about a lighthouse that has never seen the sea.",
}
TOKENS = 48


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    log = tmp_path_factory.mktemp("own_draft") / "log"
    with Application("engine-ngram.yaml", log) as application:
        yield application


def ask(name: str, speculation: str, **wishes: Any) -> httpx.Response:
    body = {
        "model": "smollm2",
        "messages": [{"role": "user", "content": TEXTS[name]}],
        "max_tokens": TOKENS,
        "temperature": 0,
        "rayspec": {"speculation": speculation, **wishes},
    }
    headers = {"x-workload-class": name}
    url = f"{BASE_URL}/v1/chat/completions"
    return httpx.post(url, json=body, headers=headers, timeout=120).raise_for_status()


def content(answer: httpx.Response) -> str:
    return str(answer.json()["choices"][0]["message"]["content"])


def test_it_is_whole_without_a_draft_deployment(app: Application) -> None:
    lanes = app.health()
    assert lanes is not None
    assert lanes["speculative"]["draft_attached"] is True
    assert app.replicas().keys() == {"Ingress", "SpeculativeTarget", "PlainTarget"}
    assert app.draft_processes() == []


@pytest.mark.parametrize("name", list(TEXTS))
def test_both_lanes_say_the_same(app: Application, name: str) -> None:
    drafted, plain = ask(name, "on"), ask(name, "off")
    assert drafted.headers["x-rayspec-lane"] == "speculative"
    assert plain.headers["x-rayspec-lane"] == "plain"
    assert content(drafted) == content(plain)


def test_acceptance_is_measured_by_class(app: Application) -> None:
    def counts(kind: str, **labels: str) -> float:
        return app.metric(f"rayspec_{kind}_tokens_total", **labels)

    before = {name: counts("drafted", workload_class=name) for name in TEXTS}
    everything = counts("position_drafted")
    for name in TEXTS:
        ask(name, "on")
    drafted = {name: counts("drafted", workload_class=name) - before[name] for name in TEXTS}
    assert drafted["code"] > 0
    # What requests say of themselves, and what the engine's scheduler counts.
    assert counts("position_drafted") - everything == sum(drafted.values())

    state = httpx.get(f"{BASE_URL}/ui/state", timeout=30).json()
    (link,) = state["links"]
    assert (link["method"], link["attached"], link["shards"]) == ("ngram", True, [])
    assert sum(link["drafted_per_pos"]) == counts("position_drafted")
    assert len(link["accepted_per_pos"]) == 4
    classes = {each["name"]: each for each in state["classes"]}
    assert classes["code"]["acceptance"] > 0.3
    assert app.metric("rayspec_draft_method", method="ngram") == 1
    assert app.metric("rayspec_draft_attached") == 1


def test_a_request_drafts_as_much_as_it_asks_for(app: Application) -> None:
    def by_position() -> list[float]:
        name = "rayspec_position_drafted_tokens_total"
        return [app.metric(name, position=str(n)) for n in range(4)]

    before = by_position()
    ask("code", "on", k=2)
    first, second, third, fourth = (b - a for a, b in zip(before, by_position(), strict=True))
    assert first > 0
    assert second > 0
    assert third == fourth == 0


def test_where_requests_go_is_decided_by_what_was_measured(app: Application) -> None:
    for speculation in ("on", "off", "on", "off"):
        for name in TEXTS:
            ask(name, speculation)
    reasons = {ask(name, "auto").headers["x-rayspec-reason"] for name in TEXTS}
    assert {reason.split()[0] for reason in reasons} <= {"together", "faster", "steady", "explore"}
