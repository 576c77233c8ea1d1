"""`rayspec simulate` as a user types it: tables, JSON, a picture, and one line for each mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from rayspec.cli.main import app
from rayspec.errors import ConfigError
from rayspec.planning.examples import names, open_calibration

FEW = ("--requests", "150", "--quiet")


def run(*args: str) -> Result:
    return CliRunner().invoke(app, ["simulate", *FEW, *args])


def test_without_options_it_shows_an_example_and_says_so() -> None:
    result = run()
    assert result.exit_code == 0, result.output
    assert "EXAMPLE, not your hardware: calibration h200-8b" in result.stdout
    assert "150 requests, 8 users" in result.stdout
    for name in ("no speculation", "always on", "rayspec", "oracle"):
        assert f"engines   {name}: " in result.stdout
    for name in open_calibration("h200-8b").classes:
        assert f"\n{name}: " in result.stdout


def test_json_is_all_there_is_on_standard_output_and_repeats_by_seed() -> None:
    one, same, other = (
        run("--json", "--rate", "5", "--slo-tpot", "6", "--seed", seed) for seed in "112"
    )
    found = json.loads(one.stdout)
    assert one.stdout == same.stdout != other.stdout
    assert found["slo"] == {"ttft_s": None, "tpot_s": 0.006}
    (only,) = found["runs"]
    assert {scenario["name"] for scenario in only["scenarios"]} == {
        "no speculation",
        "always on",
        "rayspec",
        "oracle",
    }
    counts = [s["classes"]["all"]["requests"] for s in only["scenarios"]]
    assert counts == [150] * 4
    assert [v["class"] for v in only["verdicts"]] == ["code", "structured", "chat", "creative"]


def test_a_sweep_is_drawn(tmp_path: Path) -> None:
    file = tmp_path / "latency.png"
    result = run("--sweep", "1,4", "--plot", str(file), "--mix", "code", "--slo-ttft", "100")
    assert result.exit_code == 0, result.output
    assert "\n1 users\n" in result.stdout
    assert "\n4 users\n" in result.stdout
    assert file.read_bytes().startswith(b"\x89PNG")
    assert file.stat().st_size > 20_000


def test_a_recorded_trace(tmp_path: Path) -> None:
    file = tmp_path / "azure.csv"
    lines = [f"2023-11-16 18:15:{second:02}.6805900,374,44" for second in range(60)]
    file.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *lines]))
    result = run("--trace", str(file), "--class", "code", "--rate", "10")
    assert result.exit_code == 0, result.output
    assert "60 requests, 10 requests/s, classes code" in result.stdout


def test_a_class_can_be_added_by_its_acceptance() -> None:
    result = run("--acceptance", "legal=0.9", "--mix", "legal", "--output-tokens", "40")
    assert result.exit_code == 0, result.output
    assert "acceptance 0.90" in result.stdout


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--calibration", "nowhere.json"), "is no file"),
        (("--mix", "poetry"), "poetry is not in the calibration"),
        (("--rate", "1", "--users", "1"), "choose one of the two"),
        (("--rate", "0"), "is not positive"),
        (("--acceptance", "code"), "is not CLASS=VALUE"),
        (("--acceptance", "code=2"), "is not CLASS=VALUE"),
        (("--sweep", "1,x"), "is not a list of whole numbers of users"),
        (("--sweep", "1.5"), "is not a list of whole numbers of users"),
        (("--sweep", "0", "--rate", "1"), "is not a list of rates"),
        (("--trace", "nowhere.csv"), "cannot be read"),
        (("--speculative-replicas", "0", "--plain-replicas", "0"), "there has to be an engine"),
    ],
)
def test_a_mistake_is_one_line(args: tuple[str, ...], message: str) -> None:
    error = run(*args).exception
    assert isinstance(error, ConfigError)
    assert message in str(error)
    assert "\n" not in str(error)


@pytest.mark.parametrize("name", names())
def test_every_example_says_what_is_assumed(name: str) -> None:
    example = open_calibration(name)
    assert example.notes
    assert example.classes
    assert {"speculative", "plain"} == set(example.lanes)
