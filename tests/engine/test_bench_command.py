from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.e2e
def test_the_command_measures_plain_and_rayspec_on_a_cpu(tmp_path: Path) -> None:
    command = [sys.executable, "load_tests/bench_engine.py", "--device", "cpu", "--tiny"]
    command += ["--trace", "--k", "2", "4", "--rounds", "2", "--batch", "1", "2"]
    command += ["--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["failures"] == {}
    assert "one step of rayspec" in done.stdout
    rows = {(row["system"], row["k"], row["batch"]): row for row in report["results"]}
    assert {key[:2] for key in rows} == {
        ("plain", 0),
        ("rayspec", 2),
        ("rayspec", 4),
        ("verify-only", 2),
        ("verify-only", 4),
    }
    for (system, k, _), row in rows.items():
        assert row["rounds"] == 2
        assert row["interleaved"]
        if system == "rayspec":
            # The draft is the target itself, so that nearly all it proposes is accepted.
            assert k / 2 < row["tokens_per_step"] <= k + 1
