"""Every query of the Grafana dashboard, asked of a real Prometheus that scrapes the application."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.application import BASE_URL, Application
from tests.support.both_lanes import both_lanes
from tests.support.prometheus import Prometheus, queries, resolved

pytestmark = pytest.mark.e2e

# Long enough for rates over 20 s, and for the same 20 s earlier.
SERVED_S = 60.0


@pytest.fixture(scope="module")
def prometheus(
    app: Application, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Prometheus, float]]:
    folder: Path = tmp_path_factory.mktemp("prometheus")
    with Prometheus(folder, BASE_URL.removeprefix("http://")) as server, both_lanes():
        time.sleep(SERVED_S)
        yield server, time.time() - 15


def test_the_application_is_scraped(prometheus: tuple[Prometheus, float]) -> None:
    server, _ = prometheus
    deadline = time.monotonic() + 30  # on a busy machine a scrape now and then takes too long
    while True:
        (target,) = server.ask("targets")["activeTargets"]
        if target["health"] == "up":
            break
        assert time.monotonic() < deadline, target["lastError"]
        time.sleep(1)
    assert target["scrapePool"] == "rayspec"


@pytest.mark.parametrize(("panel", "query"), list(queries()))
def test_every_query_has_data(prometheus: tuple[Prometheus, float], panel: str, query: str) -> None:
    server, since = prometheus
    asked = resolved(query, interval="20s", before="20s")
    if panel.startswith("annotation"):
        server.ask("query", query=asked)  # is valid; nothing was lost
    else:
        assert server.points(asked, since) > 0, asked
