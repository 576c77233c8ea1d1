"""The load test against the running application, and the report of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from load_tests.report import main
from load_tests.workloads import PROFILES
from tests.support.application import BASE_URL, Application
from tests.support.load import run_locust

pytestmark = pytest.mark.e2e


def test_all_classes_and_both_lanes_without_a_failure(app: Application, tmp_path: Path) -> None:
    before = app.metric("rayspec_requests_total", status="200")
    options = "--steps 2,6 --step-seconds 8 --prompt-scale 0.2 --output-scale 0.1 --sessions 4"
    file = tmp_path / "result.json"
    done = run_locust(BASE_URL, file, *options.split(), timeout_s=240)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(file.read_text())
    assert result["failures"] == result["wrong"] == 0
    # One more asks for the model's name.
    assert app.metric("rayspec_requests_total", status="200") == before + result["requests"] + 1
    rows = [row for step in result["steps"] for row in step["rows"]]
    assert {row["class"] for row in rows} == {*PROFILES, "all"}
    assert {"speculative"} < {row["lane"] for row in rows} <= {"speculative", "plain", "all"}
    for step in result["steps"]:
        (everything,) = (r for r in step["rows"] if r["class"] == r["lane"] == "all")
        assert everything["tokens_per_s"] > 0
        assert everything["ttft_ms"]["p99"] >= everything["ttft_ms"]["p50"] > 0
        assert 0 <= everything["acceptance"] <= 1
    assert main([str(file), "--out", str(tmp_path / "report.html")]) == 0
