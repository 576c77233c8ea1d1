"""Drafts over the link and drafts of vLLM's in one application, and requests routed between them.

The draft behind the link drafts at random, so that it is known which lane is better where prompt
lookup finds something.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import yaml

from tests.support.application import BASE_URL, ROOT, Application

pytestmark = pytest.mark.e2e

TEXTS = {
    "code": "Repeat this line of code ten times:\nprint('hello')\nprint('hello')\nprint('hello')",
    "creative": "Write a poem about a lighthouse that has never seen the sea.",
}
LANES = ("speculative", "alternative")
TOKENS = 24
# Rounds after which a class must be where it belongs.
ROUNDS = 8


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    folder = tmp_path_factory.mktemp("three_lanes")
    config = yaml.safe_load((ROOT / "deployments" / "engine-ngram.yaml").read_text())
    args = config["applications"][0]["args"]
    args["alternative"] = copy.deepcopy(args["speculative"])
    del args["speculative"]["draft"], args["plain"]
    args["draft"] = {"kind": "random"}
    file = folder / "app.yaml"
    file.write_text(yaml.safe_dump(config))
    with Application(file, folder / "log") as application:
        yield application


def ask(name: str, **wishes: Any) -> httpx.Response:
    body = {
        "model": "smollm2",
        "messages": [{"role": "user", "content": TEXTS[name]}],
        "max_tokens": TOKENS,
        "temperature": 0,
        "rayspec": wishes,
    }
    headers = {"x-workload-class": name}
    url = f"{BASE_URL}/v1/chat/completions"
    return httpx.post(url, json=body, headers=headers, timeout=120).raise_for_status()


def content(answer: httpx.Response) -> str:
    return str(answer.json()["choices"][0]["message"]["content"])


def test_both_draft(app: Application) -> None:
    lanes = app.health()
    assert lanes is not None
    assert {name: lane["draft_attached"] for name, lane in lanes.items()} == dict.fromkeys(
        LANES, True
    )
    names = {"Ingress", "Draft", "SpeculativeTarget", "AlternativeTarget"}
    assert app.replicas().keys() == names
    for lane in LANES:
        assert app.metric("rayspec_draft_attached", lane=lane) == 1
    assert app.metric("rayspec_draft_method", lane="alternative", method="ngram") == 1


@pytest.mark.parametrize("name", list(TEXTS))
def test_both_say_the_same(app: Application, name: str) -> None:
    answers = {lane: ask(name, lane=lane) for lane in LANES}
    for lane, answer in answers.items():
        assert answer.headers["x-rayspec-lane"] == lane
        assert answer.headers["x-rayspec-reason"] == f"override lane={lane}"
    assert content(answers["speculative"]) == content(answers["alternative"])


def test_wishes_are_heard_without_a_plain_lane(app: Application) -> None:
    assert ask("code", speculation="on").headers["x-rayspec-lane"] in LANES
    off = ask("code", speculation="off")
    assert off.headers["x-rayspec-reason"] == "only_lane speculation=off but no plain lane"
    with pytest.raises(httpx.HTTPStatusError, match="400"):
        ask("code", lane="plain")


def test_each_lane_tells_of_its_drafts_by_class(app: Application) -> None:
    def counts(kind: str, lane: str) -> float:
        return app.metric(f"rayspec_{kind}_tokens_total", lane=lane, workload_class="code")

    for lane in LANES:
        ask("code", lane=lane, k=4)
    assert counts("drafted", "alternative") > 0
    assert counts("accepted", "alternative") > 0.5 * counts("drafted", "alternative")
    assert counts("drafted", "speculative") > 0
    assert counts("accepted", "speculative") < 0.1 * counts("drafted", "speculative")
    state = httpx.get(f"{BASE_URL}/ui/state", timeout=30).json()
    assert {(link["lane"], link["method"]) for link in state["links"]} == {
        ("speculative", None),
        ("alternative", "ngram"),
    }
    found = {each["lane"]: each for each in state["classes"] if each["name"] == "code"}
    assert found["alternative"]["acceptance"] > 0.5 > 0.1 > found["speculative"]["acceptance"]


def test_each_class_goes_where_it_was_measured_to_be_better(app: Application) -> None:
    """Engines and router learn with every request, so some of each kind come first."""
    decided = []
    for _ in range(ROUNDS):
        for lane in LANES:
            for name in TEXTS:
                ask(name, lane=lane)
        decided = [ask("code").headers for _ in range(3)]
        if all(each["x-rayspec-lane"] == "alternative" for each in decided):
            break
    reasons = [each["x-rayspec-reason"] for each in decided]
    assert {each["x-rayspec-lane"] for each in decided} == {"alternative"}, reasons
    assert {reason.split()[0] for reason in reasons} <= {"faster", "steady", "explore"}
    told = dict(part.split("=") for part in decided[-1]["x-rayspec-predicted"].split())
    assert told.keys() == {*LANES, *(f"k_{lane}" for lane in LANES)}
    predicted = {lane: int(told[lane].removesuffix("ms")) for lane in LANES}
    assert predicted["alternative"] < predicted["speculative"]
    # For the other class drafts pay in neither lane: it takes the one that is quicker without.
    for _ in range(3):
        headers = ask("creative").headers
        rule = headers["x-rayspec-reason"].split()[0]
        assert rule in {"faster", "steady", "explore"}
        told = dict(part.split("=") for part in headers["x-rayspec-predicted"].split())
        predicted = {lane: int(told[lane].removesuffix("ms")) for lane in LANES}
        if rule != "explore":
            # Hysteresis keeps a class where it is for less than 3 %.
            assert predicted[headers["x-rayspec-lane"]] <= 1.04 * min(predicted.values())
