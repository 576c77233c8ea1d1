"""`rayspec verify` against the running application."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from rayspec.audit.client import Client
from rayspec.audit.prompts import built_in
from rayspec.routing.types import Lane
from tests.support.application import BASE_URL, Application

pytestmark = pytest.mark.e2e


def verify(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rayspec.cli", "verify", "--url", BASE_URL, "-q", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


def test_default_application_passes(app: Application, tmp_path: Path) -> None:
    told, page = tmp_path / "out.json", tmp_path / "out.html"
    few = ("--limit", "3", "--max-tokens", "24", "--fail-on", "explained")
    drawn = ("--samples", "40", "--sample-tokens", "8", "--sample-prompts", "1")
    done = verify(*few, *drawn, "--json", str(told), "--html", str(page))
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(told.read_text())
    assert (report["passed"], report["differences"], report["unstable"]) == (True, [], 0)
    code, everything = report["classes"]
    assert (code["workload_class"], everything["prompts"]) == ("code", 3)
    assert 0 < everything["accepted"] <= everything["drafted"]
    assert everything["plain"]["tpot_ms"] > 0
    (sampled,) = report["sampled"]
    assert sampled["drafted"] > 0
    assert sampled["different_answers"] > 1
    assert {test["kind"] for test in sampled["tests"]} == {"positions", "pairs"}
    assert "3 of 3 greedy answers are equal" in page.read_text()


def test_log_probabilities_of_a_place_are_the_models(app: Application) -> None:
    async def compare() -> None:
        async with Client(BASE_URL) as client:
            await client.check()
            (prompt,) = built_in(1)
            answer = await client.ask(prompt, Lane.PLAIN, 6, temperature=0)
            for at, token in enumerate(answer.tokens):
                likely = await client.likeliest(answer.prompt_tokens + answer.tokens[:at], prompt)
                assert len(likely) >= 5
                assert max(likely, key=likely.__getitem__) == token
            assert (await client.text(answer.tokens)).strip()

    asyncio.run(compare())


def test_without_a_draft_there_is_nothing_to_verify(app: Application) -> None:
    (victim,) = app.draft_processes()
    victim.suspend()
    try:
        app.wait_for(lambda: not app.complete(), 30)
        done = verify("--limit", "1")
        assert (done.returncode, done.stdout) == (2, "")
        assert "no draft is attached to the speculative lane" in done.stderr
    finally:
        victim.resume()
    app.wait_for(app.complete, 120)
