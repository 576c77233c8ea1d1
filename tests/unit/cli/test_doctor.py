"""`rayspec doctor`, as a user types it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from rayspec.cli import main


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *args: str
) -> tuple[object, str, str]:
    monkeypatch.setattr(sys, "argv", ["rayspec", "doctor", *args])
    with pytest.raises(SystemExit) as exited:
        main()
    captured = capsys.readouterr()
    return exited.value.code, captured.out, captured.err


def broken(tmp_path: Path) -> str:
    (tmp_path / "app.yaml").write_text("model: ./nowhere\nplain: {}\n")
    return str(tmp_path / "app.yaml")


def test_a_problem_is_a_line_and_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, out, err = run(monkeypatch, capsys, broken(tmp_path))

    assert (code, err) == (1, "")
    first = out.splitlines()[0]
    assert first.startswith("problem")
    assert "./nowhere is neither a model folder nor a Hugging Face id -> correct it" in first


def test_json_says_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, out, _ = run(monkeypatch, capsys, broken(tmp_path), "--json")

    report = json.loads(out)
    assert code == 1
    assert report["ok"] is False
    assert report["findings"][0] == {
        "level": "problem",
        "topic": "model",
        "what": "./nowhere is neither a model folder nor a Hugging Face id",
        "remedy": "correct it",
    }


def test_warnings_alone_are_no_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("rayspec.audit.doctor.diagnose", lambda file, application: [])

    assert run(monkeypatch, capsys) == (0, "0 problems, 0 warnings, 0 ok\n", "")
