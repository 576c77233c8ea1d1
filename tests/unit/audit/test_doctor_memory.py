from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rayspec.audit.doctor_facts import Application, Finding, Level, Machine, Model
from rayspec.audit.doctor_memory import check_memory, engine_budget, engine_ram
from tests.support.doctor import CPU, GIB, LLAMA_8B, application, with_gpus

LLAMA = {"m": LLAMA_8B}
CACHE = {"env": {"VLLM_CPU_KVCACHE_SPACE": "1"}}
ON_CPU: dict[str, Any] = {"dtype": "float32", "speculative": CACHE, "plain": CACHE}


def levels(app: Application, machine: Machine) -> list[Level]:
    return [each.level for each in check_memory(app, machine)]


def only(app: Application, machine: Machine) -> Finding:
    (finding,) = check_memory(app, machine)
    return finding


def one_lane(**settings: Any) -> Application:
    return application(LLAMA, has_gpu=True, speculative=None, draft=None, **settings)


def test_weights_and_cache_of_an_engine_on_a_gpu() -> None:
    app = one_lane(max_model_len=8192, dtype="bfloat16")
    assert app.spec.plain is not None

    found = engine_budget(app.spec.plain, LLAMA_8B, 80 * GIB)

    assert found.weights == pytest.approx(8.03e9 * 2, rel=0.01)
    assert found.kv_bytes_per_token == 2 * 32 * 8 * 128 * 2
    assert found.needed == 8192 * found.kv_bytes_per_token
    assert 50 * GIB < found.kv < 58 * GIB


@pytest.mark.parametrize(
    ("gib", "settings", "level", "words"),
    [
        (80, {"max_model_len": 8192}, Level.OK, "tokens"),
        (16, {"max_model_len": 8192}, Level.PROBLEM, "lacks"),
        (24, {"max_model_len": 65536}, Level.PROBLEM, "65536 tokens"),
        (24, {"max_model_len": 32768}, Level.WARNING, "of the longest"),
        (80, {"max_model_len": 131072, "plain": {"tensor_parallel_size": 2}}, Level.OK, "tokens"),
        (80, {"plain": {"num_gpus": 0.2}, "max_model_len": 4096}, Level.PROBLEM, "lacks"),
        (
            80,
            {"plain": {"engine_args": {"kv_cache_memory_bytes": 70 * GIB}}, "max_model_len": 4096},
            Level.PROBLEM,
            "lacks",
        ),
        (
            80,
            {"plain": {"engine_args": {"kv_cache_memory_bytes": 4 * GIB}}, "max_model_len": 4096},
            Level.OK,
            "KV cache 4.0 GiB = 32768 tokens",
        ),
    ],
)
def test_a_lane_on_a_gpu(gib: int, settings: dict[str, Any], level: Level, words: str) -> None:
    finding = only(one_lane(**settings), with_gpus(1, gib))

    assert (finding.level, finding.topic) == (level, "memory")
    assert words in finding.what
    assert bool(finding.remedy) == (level is not Level.OK)


def test_the_smallest_gpu_decides() -> None:
    machine = with_gpus(2)
    small = replace(machine.gpus.devices[1], memory=16 * GIB)
    mixed = replace(machine, gpus=replace(machine.gpus, devices=(machine.gpus.devices[0], small)))

    assert levels(one_lane(max_model_len=8192), machine) == [Level.OK]
    assert levels(one_lane(max_model_len=8192), mixed) == [Level.PROBLEM]


def test_without_gpus_it_says_what_would_be_needed() -> None:
    finding = only(one_lane(max_model_len=8192, device="cuda"), CPU)

    assert finding.level is Level.OK
    assert "needs at least 1" in finding.what


@pytest.mark.parametrize(
    ("draft", "level"),
    [
        ({}, Level.OK),
        ({"kv_gib": 79.5}, Level.PROBLEM),
        ({"kv_gib": 1}, Level.WARNING),
        ({"num_gpus": 0.01}, Level.PROBLEM),
    ],
)
def test_a_draft_model_on_a_gpu(draft: dict[str, Any], level: Level) -> None:
    app = application(
        has_gpu=True, plain=None, draft={"kind": "model", "model": "d", **draft}, max_model_len=4096
    )

    findings = list(check_memory(app, with_gpus(2)))

    assert [each.level for each in findings] == [Level.OK, level]
    assert "draft" in findings[1].what


def test_memory_of_engines_on_a_cpu() -> None:
    app = application(**ON_CPU)
    assert app.spec.plain is not None

    size = engine_ram(app.spec.plain, dict(app.models["m"].config), 16 * GIB)

    # Weights in float32, 1 GiB of KV cache, 1 GiB of everything else.
    assert size == pytest.approx(134.5e6 * 4 + 2 * GIB, rel=0.01)


@pytest.mark.parametrize(
    ("facts", "settings", "level"),
    [
        ({}, ON_CPU, Level.OK),
        ({"memory_free": 4 * GIB}, ON_CPU, Level.WARNING),
        ({"memory": 4 * GIB}, ON_CPU, Level.PROBLEM),
        # Left alone, each of the two engines takes most of the memory.
        ({}, {}, Level.PROBLEM),
    ],
)
def test_memory_of_a_whole_application_on_a_cpu(
    facts: dict[str, Any], settings: dict[str, Any], level: Level
) -> None:
    finding = only(application(**settings), replace(CPU, **facts))

    assert finding.level is level
    assert "speculative lane" in finding.what
    assert bool(finding.remedy) == (level is not Level.OK)


def test_a_model_that_is_not_here_or_not_understood_is_said_to_be_unknown() -> None:
    app = one_lane()
    away = replace(app, models={"m": Model("m", missing="is not on this machine")})
    odd = replace(app, models={"m": replace(app.models["m"], config={"model_type": "odd"})})

    assert "unknown until m is here" in only(away, with_gpus(1)).what
    assert "cannot be computed" in only(odd, with_gpus(1)).what
