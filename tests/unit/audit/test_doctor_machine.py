from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rayspec.audit.doctor_facts import Finding, Gpu, Level, Machine
from rayspec.audit.doctor_machine import check_machine
from tests.support.doctor import CPU, GIB, with_gpus

UNNICED = CPU.environment


def found(machine: Machine, device: str = "cpu") -> list[Finding]:
    return [each for each in check_machine(machine, device=device) if each.level is not Level.OK]


def test_nothing_is_wrong_with_good_machines() -> None:
    assert found(CPU) == []
    assert found(with_gpus(2), "cuda") == []
    assert {each.topic for each in check_machine(with_gpus(2), device="cuda")} == {
        "versions",
        "gpus",
        "links",
        "driver",
        "shm",
    }


@pytest.mark.parametrize(
    ("facts", "level", "topic", "words"),
    [
        ({"python": "3.10.2"}, Level.PROBLEM, "versions", "python 3.10.2"),
        ({"packages": {**CPU.packages, "torch": "2.12.1"}}, Level.PROBLEM, "versions", "==2.13.0"),
        ({"packages": {"torch": "2.13.0"}}, Level.PROBLEM, "vllm", "not installed"),
        ({"packages": {**CPU.packages, "vllm": "0.32.0"}}, Level.PROBLEM, "vllm", "over each"),
        ({"packages": {"vllm": "0.32.0"}}, Level.PROBLEM, "vllm", "runs on cpu"),
        ({"hooks": ("no Scheduler in x",)}, Level.PROBLEM, "vllm", "no Scheduler in x"),
        ({"cpu_flags": frozenset({"sse4_2"})}, Level.PROBLEM, "cpu", "AVX2"),
        ({"shm": 64 * 2**20}, Level.WARNING, "shm", "64 MiB"),
        ({"open_files": (1024, 4096)}, Level.WARNING, "files", "1024"),
        ({"environment": {}}, Level.WARNING, "priority", "niceness 15"),
        (
            {"environment": {"RAY_AUTH_MODE": "disabled", **UNNICED}},
            Level.WARNING,
            "ray auth",
            "run code",
        ),
        ({"environment": {"RAY_AUTH_MODE": "on", **UNNICED}}, Level.PROBLEM, "ray auth", "no mode"),
        (
            {"environment": {"RAY_AUTH_TOKEN_PATH": "/x", **UNNICED}},
            Level.PROBLEM,
            "ray auth",
            "no file",
        ),
        (
            {"environment": {"RAY_ADDRESS": "ray://h:1", **UNNICED}},
            Level.WARNING,
            "ray",
            "ray://h:1",
        ),
        (
            {"token_file": Path("/t"), "token_exposed": True},
            Level.WARNING,
            "ray auth",
            "others may read",
        ),
    ],
)
def test_one_thing_that_is_wrong(
    facts: dict[str, Any], level: Level, topic: str, words: str
) -> None:
    (finding,) = found(replace(CPU, **facts))

    assert (finding.level, finding.topic) == (level, topic)
    assert words in finding.what
    assert finding.remedy


def test_a_remedy_for_files_stays_within_what_is_allowed() -> None:
    (limited,) = found(replace(CPU, open_files=(1024, 4096)))
    (unlimited,) = found(replace(CPU, open_files=(1024, -1)))

    assert limited.remedy == "ulimit -n 4096"
    assert unlimited.remedy == "ulimit -n 65536"
    assert found(replace(CPU, open_files=(-1, -1))) == []


@pytest.mark.parametrize(
    ("machine", "level", "topic", "words"),
    [
        (with_gpus(2, driver_cuda=(12, 8)), Level.PROBLEM, "driver", "CUDA 12.8"),
        (replace(with_gpus(1), torch_cuda=None), Level.PROBLEM, "driver", "without CUDA"),
        (replace(with_gpus(1), compiler=None), Level.PROBLEM, "compiler", "Triton"),
        (with_gpus(2, visible=1), Level.WARNING, "gpus", "torch sees 1 of 2"),
        (with_gpus(3, peers=frozenset({(0, 1)})), Level.WARNING, "links", "2 of 3 pairs"),
        (
            with_gpus(1, devices=(Gpu(0, "H100", 80 * GIB, used=30 * GIB),)),
            Level.WARNING,
            "gpus",
            "30.0 GiB of GPU 0",
        ),
    ],
)
def test_one_thing_that_is_wrong_with_gpus(
    machine: Machine, level: Level, topic: str, words: str
) -> None:
    (finding,) = found(machine, "cuda")

    assert (finding.level, finding.topic) == (level, topic)
    assert words in finding.what
    assert finding.remedy


def test_a_newer_minor_version_of_cuda_than_the_drivers_is_fine() -> None:
    machine = replace(with_gpus(1, driver_cuda=(13, 0)), torch_cuda="13.2")

    assert found(machine, "cuda") == []


def test_a_cpu_build_beside_gpus_is_said_for_the_device_that_is_used() -> None:
    machine = replace(with_gpus(1), packages=CPU.packages, required=CPU.required)

    assert found(machine, "cpu") == []
    assert [each.topic for each in found(machine, "cuda")] == ["vllm"]
