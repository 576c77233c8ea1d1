"""`rayspec verify` over HTTP, against lanes with planted faults and without."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from rayspec.cli import main
from tests.support.two_lanes import TwoLanes

Verify = Callable[..., tuple[object, dict[str, Any], str, str]]
QUICK = ("--limit", "8", "--max-tokens", "16", "--samples", "60", "--sample-tokens", "6", "-q")


@pytest.fixture
def verify(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Verify:
    """Return a function that verifies a server; it returns code, JSON, page and errors."""

    def verify_(lanes: TwoLanes, *args: str) -> tuple[object, dict[str, Any], str, str]:
        told, page = tmp_path / "out.json", tmp_path / "out.html"
        with lanes:
            files = ("--json", str(told), "--html", str(page))
            arguments = ["rayspec", "verify", "--url", lanes.url, *QUICK, *files, *args]
            monkeypatch.setattr(sys, "argv", arguments)
            with pytest.raises(SystemExit) as exited:
                main()
        errors = capsys.readouterr().err
        if not told.exists():
            return exited.value.code, {}, "", errors
        return exited.value.code, json.loads(told.read_text()), page.read_text(), errors

    return verify_


def test_equal_lanes_pass(verify: Verify) -> None:
    lanes = TwoLanes()
    code, told, page, errors = verify(lanes)
    assert (code, errors) == (0, "")
    assert (told["format"], told["passed"], told["differences"]) == (1, True, [])
    assert told["distributions_differ"] is False
    assert [row["workload_class"] for row in told["classes"]] == ["code", "summarize", "all"]
    everything = told["classes"][-1]
    assert (everything["acceptance"], everything["tokens_per_step"]) == (0.5, 2.0)
    assert everything["faster"]["e2e_ms"]["low"] <= everything["faster"]["e2e_ms"]["value"]
    assert "Passed" in page
    assert "8 of 8 greedy answers are equal" in page
    # Every sampled answer of either lane has a seed of its own.
    (sampled,) = told["sampled"]
    assert sampled["samples"] == [60, 60]
    assert lanes.seeds == set(range(120))
    assert all(0.01 <= test["detectable"] <= 1 for test in sampled["tests"])


def test_where_more_than_one_lane_drafts_they_are_asked_by_name(verify: Verify) -> None:
    lanes = TwoLanes(replicas={"speculative": 1, "alternative": 1, "plain": 1})
    assert verify(lanes, "--samples", "0")[0] == 0
    assert lanes.named == {"speculative", "plain"}
    lanes = TwoLanes()
    assert verify(lanes, "--samples", "0")[0] == 0
    assert lanes.named == set()


def test_a_clear_difference_fails_with_its_margin(verify: Verify) -> None:
    code, told, page, _ = verify(TwoLanes(wrong_at=3, gap=0.9), "--samples", "0")
    assert (code, told["passed"], told["unexplained"]) == (1, False, 8)
    first = told["differences"][0]
    assert first["where"]["position"] == 3
    assert first["verdict"]["margin"] == pytest.approx(0.9)
    assert first["verdict"]["explained"] is False
    assert len(first["before"]) == 3
    assert first["reference_goes_on"].startswith(first["reference_text"])
    assert first["reference_text"] != first["speculative_text"]
    assert "Failed" in page
    assert "not explained" in page


def test_a_near_tie_is_explained_unless_that_is_to_fail(verify: Verify) -> None:
    code, told, page, _ = verify(TwoLanes(wrong_at=3, gap=0.2), "--samples", "0")
    assert (code, told["passed"], told["unexplained"], len(told["differences"])) == (0, True, 0, 8)
    assert "near tie" in page
    strict = verify(TwoLanes(wrong_at=3, gap=0.2), "--samples", "0", "--fail-on", "explained")
    assert (strict[0], strict[1]["passed"]) == (1, False)
    closer = verify(TwoLanes(wrong_at=3, gap=0.2), "--samples", "0", "--margin", "0.1")
    assert closer[0] == 1


def test_an_answer_that_ends_early_fails(verify: Verify) -> None:
    code, told, _, _ = verify(TwoLanes(ends_at=5), "--samples", "0")
    assert code == 1
    assert told["differences"][0]["where"] == {
        "position": 5,
        "reference": told["differences"][0]["where"]["reference"],
        "speculative": None,
    }
    assert told["differences"][0]["verdict"]["margin"] is None


def test_samples_that_follow_the_draft_fail(verify: Verify) -> None:
    code, told, page, _ = verify(TwoLanes(greed=0.6), "--samples", "120")
    assert (code, told["passed"], told["distributions_differ"]) == (1, False, True)
    assert told["differences"] == []
    assert "Distributions of sampled answers differ" in page


def test_a_full_lane_is_asked_again(verify: Verify) -> None:
    assert verify(TwoLanes(full=3), "--samples", "0")[0] == 0


@pytest.mark.parametrize(
    ("lanes", "told"),
    [
        (TwoLanes(replicas={"plain": 1}), "no replica of the speculative lane"),
        (TwoLanes(replicas={"speculative": 1, "plain": 0}), "no replica of the plain lane"),
        (TwoLanes(attached=False), "no draft is attached"),
        (
            TwoLanes(answers_in={"speculative": "plain", "plain": "plain"}),
            "the speculative lane was asked and plain answered: override",
        ),
        (TwoLanes(drafting=False), "nothing was drafted"),
    ],
)
def test_without_both_lanes_there_is_nothing_to_verify(
    verify: Verify, lanes: TwoLanes, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rayspec.audit.client.WAIT_S", 0.0)
    code, report, _, errors = verify(lanes)
    assert (code, report) == (2, {})
    assert told in errors
    assert errors.count("\n") == 1


def test_nobody_answers(verify: Verify) -> None:
    code, _, _, errors = verify(TwoLanes(), "--url", "http://127.0.0.1:9")
    assert code == 2
    assert "nothing answers at http://127.0.0.1:9" in errors


@pytest.mark.parametrize(
    "args",
    [
        ("--samples", "5"),
        ("--fail-on", "nothing"),
        ("--prompts", "/nowhere/asked.jsonl"),
        ("--html", "/nowhere/out.html"),
    ],
)
def test_wrong_usage(verify: Verify, args: tuple[str, ...]) -> None:
    code, report, _, errors = verify(TwoLanes(), *args)
    assert (code, report) == (2, {})
    assert args[0] in errors


def test_penalties_leave_a_difference_unexplained(verify: Verify, tmp_path: Path) -> None:
    asked = tmp_path / "asked.jsonl"
    asked.write_text('{"prompt": "Once upon", "presence_penalty": 1.0}\n')
    lanes = TwoLanes(wrong_at=2, gap=0.1)
    code, told, _, _ = verify(lanes, "--samples", "0", "--prompts", str(asked))
    assert code == 1
    assert "presence_penalty" in told["differences"][0]["verdict"]["reason"]


def test_the_page_stands_alone_and_escapes(verify: Verify, tmp_path: Path) -> None:
    asked = tmp_path / "asked.jsonl"
    rows = [{"class": "code", "prompt": f"<script>alert({n})</script>"} for n in range(4)]
    asked.write_text("\n".join(json.dumps(row) for row in rows))
    _, _, page, _ = verify(TwoLanes(wrong_at=1), "--prompts", str(asked))
    assert not re.search(r"\b(src|href)=|@import|url\(", page)
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    _Balanced().check(page)


class _Balanced(HTMLParser):
    """Fails where an element is closed that is not the last one opened."""

    def check(self, page: str) -> None:
        self.open: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
