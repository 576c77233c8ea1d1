"""A CPU engine of one rank is one process, on cores of its own where there are enough."""

from __future__ import annotations

import os

import pytest

from tests.support.application import Application

pytestmark = pytest.mark.e2e


def test_an_engine_is_one_process_on_its_own_cores(app: Application) -> None:
    first, second = app.processes("VLLM::EngineCore")
    assert app.processes("VLLM::Worker") == []
    if len(os.sched_getaffinity(0)) > 1:
        assert not set(first.cpu_affinity()) & set(second.cpu_affinity())
