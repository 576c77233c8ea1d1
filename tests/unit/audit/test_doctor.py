from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rayspec.audit.doctor import Finding, Level, diagnose, examine, render
from tests.support.doctor import CPU, application, with_gpus

LANES = {"env": {"VLLM_CPU_KVCACHE_SPACE": "1"}}


def test_the_worst_comes_first() -> None:
    machine = replace(CPU, shm=0, packages={}, cores=1)

    levels = [each.level for each in examine(application(), machine)]

    assert levels == sorted(levels)
    assert {Level.PROBLEM, Level.WARNING, Level.OK} == set(levels)


def test_a_good_application_on_a_good_machine_has_no_problem() -> None:
    on_cpu = application(speculative=LANES, plain=LANES)
    on_gpus = application(has_gpu=True, draft={"kind": "model", "model": "d"})

    for findings in (examine(on_cpu, CPU), examine(on_gpus, with_gpus(3))):
        assert {each.level for each in findings} == {Level.OK}


def test_an_application_for_gpus_is_examined_as_such_where_there_are_none() -> None:
    app = application(device="cuda", draft={"kind": "model", "model": "d"})

    topics = [each.topic for each in examine(app, CPU) if each.level is Level.PROBLEM]

    assert topics == ["placement", "vllm", "driver"]


def test_one_line_for_each_finding_and_one_that_counts() -> None:
    findings = [
        Finding(Level.PROBLEM, "http", "taken", "stop it"),
        Finding(Level.OK, "placement", "fine"),
    ]

    assert render(findings) == [
        "problem  http       taken -> stop it",
        "ok       placement  fine",
        "1 problem, 0 warnings, 1 ok",
    ]


def test_a_configuration_that_is_not_valid_is_a_problem_beside_those_of_the_machine(
    tmp_path: Path,
) -> None:
    (tmp_path / "app.yaml").write_text("model: smollm2\nplain: {}\ndevise: cpu\n")

    first, *others = diagnose(tmp_path / "app.yaml")

    assert first == Finding(
        Level.PROBLEM, "configuration", "devise = 'cpu'", "unknown field; did you mean 'device'?"
    )
    assert {"versions", "shm"} <= {each.topic for each in others}


def test_a_damaged_model_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    (tmp_path / "app.yaml").write_text(f"model: {tmp_path}\nplain: {{}}\n")

    first = diagnose(tmp_path / "app.yaml")[0]

    assert (first.level, first.topic) == (Level.PROBLEM, "model")
    assert "config.json cannot be read" in first.what


@pytest.mark.parametrize("name", ["app", "gpu-1", "gpu-2", "gpu-4"])
def test_every_deployment_can_be_examined(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rayspec.models.hub.reachable", lambda: False)

    findings = diagnose(Path(__file__).parents[3] / "deployments" / f"{name}.yaml")

    assert {"model", "http", "memory", "versions"} <= {each.topic for each in findings}
