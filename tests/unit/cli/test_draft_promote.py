from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rayspec.cli.draft_promote import NotPromoted, _judge, _promoted

FOUND = {"gain": 0.5, "low": 0.25, "high": 0.75, "base": 2.0}


def trial(state: str, found: dict[str, float] | None = FOUND) -> dict[str, Any]:
    return {"state": state, "requests": {"old": 90, "new": 10}, "tokens_per_step": found}


def test_what_was_measured_to_be_as_good_is_promoted() -> None:
    _judge(trial("promoted"), force=False)
    _judge(trial("rolled_back"), force=True)


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (None, "tries no new draft"),
        (trial("trial", None), "undecided after 10 requests beside 90 of the old one: wait"),
        (trial("trial"), r"undecided after .*, \+0.500 tokens a step \(\+0.250..\+0.750\)"),
        (trial("rolled_back"), "rolled back after .*remove draft.candidate"),
    ],
)
def test_what_was_not_is_not_and_it_says_why(found: dict[str, Any] | None, why: str) -> None:
    with pytest.raises(NotPromoted, match=why):
        _judge(found, force=False)


def serve_yaml(draft: dict[str, Any]) -> dict[str, Any]:
    other = {"name": "other", "import_path": "other:app"}
    ours = {"name": "ours", "import_path": "rayspec.app:build", "args": {"draft": draft}}
    return {"proxy_location": "HeadOnly", "applications": [other, ours]}


def test_the_new_version_takes_the_place_of_the_old_one() -> None:
    old = {"kind": "model", "model": "old", "num_threads": 2}
    content = serve_yaml({**old, "candidate": {"model": "new", "share": 0.2}})
    changed, model = _promoted(Path("app.yaml"), content, None)
    assert model == "new"
    assert changed == serve_yaml({**old, "model": "new"})
    assert content["applications"][1]["args"]["draft"]["model"] == "old"


@pytest.mark.parametrize(
    ("draft", "application"),
    [({"kind": "ngram"}, None), ({"model": "a", "candidate": {"model": "b"}}, "another")],
)
def test_without_a_new_version_there_is_nothing_to_promote(
    draft: dict[str, Any], application: str | None
) -> None:
    with pytest.raises(NotPromoted, match=r"no draft\.candidate"):
        _promoted(Path("app.yaml"), serve_yaml(draft), application)
