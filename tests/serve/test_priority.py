"""Whoever carries a stream has the priority of any other process: see `rayspec.priority`."""

from __future__ import annotations

import psutil
import pytest

from tests.support.application import Application

pytestmark = pytest.mark.e2e

CARRIERS = ("ray::ServeReplica:rayspec:", "ray::ProxyActor", "VLLM::EngineCore")


def test_no_process_of_the_application_gives_way(app: Application) -> None:
    niceness = {name: [p.nice() for p in app.processes(name)] for name in CARRIERS}

    assert all(niceness.values()), niceness
    assert max(each for found in niceness.values() for each in found) <= psutil.Process().nice()
