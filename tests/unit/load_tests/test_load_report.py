"""The page that compares load tests."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from load_tests.report import main, render
from load_tests.traffic.answer import Answer
from load_tests.traffic.compare import Comparison
from load_tests.traffic.result import StepTimes, fold
from load_tests.traffic.tally import Slo, Tally

CLASSES = ("chat", "code", "summarize")


def answered(lane: str, tpot_ms: float, text: str) -> Answer:
    told = Answer(
        lane=lane,
        recognised="chat",
        reason="faster",
        sent=0.0,
        first=0.1,
        first_tokens=1,
        last=0.1 + 0.02 * tpot_ms,
        tokens=21,
        output_tokens=21,
        text=text,
        finish_reason="stop",
        done=True,
    )
    if lane == "speculative":
        told.drafted, told.accepted = 10, 4
    return told


def result(label: str, tpot: dict[str, float], **changed: Any) -> dict[str, Any]:
    """A run of two steps; `tpot` is that of each lane."""
    tally, slo = Tally(), Slo(tpot_ms=15)
    for step in (0, 1, 2):
        for workload in CLASSES:
            for lane, tpot_ms in tpot.items():
                for number in range(6):
                    # Alone speculation gains more than in company.
                    slower = 1.0 if lane == "plain" else 1.0 + 0.8 * (step == 2)
                    told = answered(lane, tpot_ms * slower, label)
                    tally.cells[step, workload, lane].add(told, slo, crossed=False)
                    tally.cells[step, workload, lane].counts["arrived"] += 21
                    tally.texts[f"{workload}{number}"]["same" if number else lane] += 1
    steps = [
        StepTimes(0, "warm-up", 1, None, True, 5),
        StepTimes(1, "1 user", 1, None, False, 10),
        StepTimes(2, "8 users", 8, None, False, 10),
    ]
    facts = {
        "label": label,
        "started": "2026-11-26T12:00:00+00:00",
        "host": "http://127.0.0.1:8000",
        "model": "smollm2",
        "workers": 2,
        "locust": "2.47.0",
        "python": "3.11.7",
        "options": {"speculation": "auto", "mix": "chat=1"},
    }
    return fold(tally, steps, slo, facts) | changed


@pytest.fixture
def results() -> list[dict[str, Any]]:
    return [
        result("routed", {"speculative": 10.0, "plain": 20.0}),
        result("always speculative", {"speculative": 10.0}),
        result("always plain", {"plain": 20.0}),
    ]


def test_gains(results: list[dict[str, Any]]) -> None:
    comparison = Comparison(results)
    assert comparison.baseline.label == "always plain"
    assert [run.label for run in comparison.others] == ["routed", "always speculative"]
    assert comparison.steps == ["1 user", "8 users"]
    assert comparison.classes == list(CLASSES)
    assert comparison.lanes == ["speculative", "plain"]
    routed, speculative, plain = comparison.runs
    assert comparison.gain(speculative, "code", "1 user").tpot == pytest.approx(2, rel=0.02)
    assert comparison.gain(speculative, "code", "8 users").tpot == pytest.approx(1.11, rel=0.02)
    assert routed.speculated("1 user") == 0.5
    assert plain.speculated("1 user", "code") == 0
    assert plain.speculated("9 users") is None
    assert plain.value("1 user", "ttft_ms.p50") == pytest.approx(100, rel=0.01)
    assert plain.value("1 user", "acceptance") is None
    sentence = comparison.sentences(speculative)[0]
    assert sentence.startswith("chat: time per token 2.0")
    assert sentence.endswith("better at 1 user, 8 users, worse at no step")
    assert comparison.texts(speculative) == (18, 3)


def test_few_answers_are_not_compared(results: list[dict[str, Any]]) -> None:
    for row in results[1]["steps"][1]["rows"]:
        row["tpot_ms"]["count"] = 4
    comparison = Comparison(results)
    assert comparison.gain(comparison.runs[1], "code", "1 user").tpot is None


def test_labels_and_baselines(results: list[dict[str, Any]]) -> None:
    twice = Comparison([results[0], results[0]])
    assert [run.label for run in twice.runs] == ["routed", "routed #2"]
    assert Comparison(results, "routed").baseline.label == "routed"
    with pytest.raises(ValueError, match="no run 'x': routed, always speculative, always plain"):
        Comparison(results, "x")
    with pytest.raises(ValueError, match="no result"):
        Comparison([])


class Page(HTMLParser):
    """Notes the texts of the page, and that every tag is closed."""

    VOID = frozenset({"meta", "br", "link", "use", "path"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.counts: dict[str, int] = {}
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_the_page_is_whole(results: list[dict[str, Any]]) -> None:
    page = render(Comparison(results))
    parsed = Page()
    parsed.feed(page)
    assert parsed.open == []
    assert parsed.counts["svg"] == 3
    assert parsed.counts["details"] == len(CLASSES)
    text = " ".join(parsed.texts)
    for wanted in ("always speculative against always plain", "Lane by lane", "faster 36"):
        assert wanted in text
    assert "warm-up" not in re.sub(r"warm_up", "", text)
    # Self-contained: nothing is loaded from anywhere.
    assert not re.search(r'(src|href)="(?!#)', page.replace("xlink:href", "href"))
    for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        ElementTree.fromstring(svg)


def test_one_run_makes_a_page(results: list[dict[str, Any]]) -> None:
    page = render(Comparison(results[:1]))
    assert "Lane by lane" in page
    assert " against " not in page


def test_what_a_client_sends_is_text(results: list[dict[str, Any]]) -> None:
    results[0]["label"] = "<script>alert(1)</script>"
    page = render(Comparison(results))
    assert "<script>" not in page.replace("&lt;script&gt;", "")


def test_the_command(
    results: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(tmp_path / f"{number}.json") for number in range(3)]
    for file, content in zip(files, results, strict=True):
        Path(file).write_text(json.dumps(content))
    out = tmp_path / "deep" / "report.html"
    assert main([*files, "--out", str(out)]) == 0
    assert out.read_text().startswith("<!doctype html>")
    assert "always speculative against always plain" in capsys.readouterr().out
    # One of two lanes answered three prompts in another way.
    assert main([*files, "--out", str(out), "--strict"]) == 1
    failed = results[2] | {"failures": 1}
    Path(files[2]).write_text(json.dumps(failed))
    assert main([*files, "--out", str(out)]) == 1
    assert "1 failed" in out.read_text()
    with pytest.raises(SystemExit):
        main([str(tmp_path / "none.json"), "--out", str(out)])
