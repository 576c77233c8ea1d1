"""Locust itself, with two workers, against a server whose answers are known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.load import fake_server, run_locust


def test_workers_add_up_per_step(tmp_path: Path) -> None:
    file = tmp_path / "new" / "result.json"
    file.parent.mkdir()
    options = ("--steps", "2,4", "--step-seconds", "2", "--sessions", "3", "--processes", "2")
    with fake_server(wrong_every=7, refuse_every=10) as server:
        done = run_locust(server.url, file, *options, "--slo-ttft", "10000", "--label", "fake")
    result = json.loads(file.read_text())
    assert (result["label"], result["model"], result["workers"]) == ("fake", "fake", 2)
    # Nothing is lost on the way from the workers, nor in the last step.
    assert server.counts["answered"] > 20
    assert result["requests"] == server.counts["answered"]
    assert result["failures"] == server.counts["refused"] > 0
    assert done.returncode == 1
    assert "429 Overloaded: full" in done.stdout + done.stderr
    assert 0 < result["wrong"] < result["repeated"]
    names = [step["name"] for step in result["steps"]]
    assert names == ["2 users", "4 users"]
    rows = [{(row["class"], row["lane"]): row for row in s["rows"]} for s in result["steps"]]
    slow, fast = (row["all", "all"] for row in rows)
    assert fast["requests"] > slow["requests"] > 0
    assert slow["errors"].keys() | fast["errors"].keys() == {"429 Overloaded: full"}
    assert fast["reasons"]["faster"] == fast["requests"]
    assert fast["tokens"] == 4 * fast["requests"]
    assert 5 < fast["ttft_ms"]["p50"] < 500
    assert fast["good_share"] < 1
    lanes = [rows[1]["all", lane]["requests"] for lane in ("speculative", "plain")]
    assert sum(lanes) == fast["requests"]
    # Locust's own statistics have the figures of both workers, and no more requests than there are.
    assert "chat TTFT" in done.stdout + done.stderr


@pytest.mark.parametrize("how", [("--temperature", "0.5"), ("--speculation", "on")])
def test_what_is_asked(tmp_path: Path, how: tuple[str, str]) -> None:
    file = tmp_path / "result.json"
    options = ("--shape", "open", "--rates", "20", "--step-seconds", "2", "--mix", "structured")
    with fake_server() as server:
        done = run_locust(server.url, file, *options, "--name-classes", "yes", *how)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(file.read_text())
    assert 15 < result["requests"] == server.seen < 80
    bodies = server.bodies
    assert len({body["cache_salt"] for body in bodies}) == len(bodies)
    assert all(body["metadata"] == {"workload_class": "structured"} for body in bodies)
    assert any(body.get("response_format") for body in bodies)
    assert all(len(body["messages"]) == 1 for body in bodies)
    spoken = {json.dumps(body.get("rayspec")) for body in bodies}
    if how[0] == "--speculation":
        assert spoken == {'{"speculation": "on"}'}
        assert result["texts"]
    else:
        assert spoken == {"null"}
        assert {body["temperature"] for body in bodies} == {0.5}
        # What is drawn is not compared.
        assert not result["texts"]


def test_streams_that_break_are_failures(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    with fake_server(break_every=4) as server:
        done = run_locust(server.url, file, "--steps", "2", "--step-seconds", "3", timeout_s=60)
    result = json.loads(file.read_text())
    assert done.returncode == 1
    assert result["failures"] == server.counts["broken"] > 0
    assert result["requests"] == server.counts["answered"] > 0
    errors = next(row["errors"] for row in result["steps"][0]["rows"])
    assert all(error.startswith("the stream broke") for error in errors)


def test_steps_without_an_answer_are_an_error(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    options = ("--steps", "1", "--step-seconds", "1", "--exit-code-on-error", "0")
    with fake_server(refuse_every=1) as server:
        done = run_locust(server.url, file, *options)
    assert done.returncode == 1
    assert "no answer was measured at: 1 user" in done.stderr


def test_nothing_listens(tmp_path: Path) -> None:
    done = run_locust("http://127.0.0.1:9", tmp_path / "result.json", "--steps", "1")
    assert done.returncode == 1
    assert "nothing serves at http://127.0.0.1:9" in done.stderr
    assert "make serve" in done.stderr
    assert "Traceback" not in done.stderr
