"""Engines of one rank compute where they schedule, on their own cores."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest

from rayspec.vllm_ext.cpu_executor import ONE_PROCESS, openmp_settings

NAMES = ("OMP_NUM_THREADS", "GOMP_CPU_AFFINITY")


def config(backend: str) -> Any:
    """Return what is asked of a `VllmConfig`."""
    parallel = SimpleNamespace(
        distributed_executor_backend=backend,
        local_world_size=1,
        data_parallel_rank_local=None,
        _api_process_count=1,
    )
    return SimpleNamespace(parallel_config=parallel, kv_transfer_config=None)


@pytest.fixture(autouse=True)
def cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "1,3")
    monkeypatch.setenv("LD_PRELOAD", "/somewhere/libgomp.so.1")
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def settings() -> list[str | None]:
    return [os.environ.get(name) for name in NAMES]


def test_what_is_started_inside_has_the_cores_that_were_named() -> None:
    with openmp_settings(config(ONE_PROCESS)):
        assert settings() == ["2", "1 3"]
    assert settings() == [None, None]


def test_without_a_binding_nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    with openmp_settings(config(ONE_PROCESS)):
        assert settings() == [None, None]


def test_engines_with_workers_are_left_to_vllm() -> None:
    with openmp_settings(config("mp")):
        assert settings() == [None, None]
