"""Every query of the Grafana dashboard, asked of a real Prometheus that scrapes the application."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.application import BASE_URL, Application
from tests.support.both_lanes import both_lanes
from tests.support.prometheus import Prometheus, queries, resolved

pytestmark = pytest.mark.e2e

# Rates over so long, in seconds, and the same so much earlier, at every time of a window.
RATE_S, WINDOW_S = 12, 12
SERVED_S = 2 * RATE_S + WINDOW_S + 4.0


@dataclass(frozen=True)
class Scraped:
    """A Prometheus, and from when to when, in seconds of the epoch, all of its rates are known."""

    server: Prometheus
    since: float
    until: float


@pytest.fixture(scope="module")
def scraped(app: Application, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraped]:
    folder: Path = tmp_path_factory.mktemp("prometheus")
    with Prometheus(folder, BASE_URL.removeprefix("http://")) as server:
        with both_lanes():
            time.sleep(SERVED_S)
            until = time.time()
        yield Scraped(server, until - WINDOW_S, until)


def test_the_application_is_scraped(scraped: Scraped) -> None:
    deadline = time.monotonic() + 30  # on a busy machine a scrape now and then takes too long
    while True:
        (target,) = scraped.server.ask("targets")["activeTargets"]
        if target["health"] == "up":
            break
        assert time.monotonic() < deadline, target["lastError"]
        time.sleep(1)
    assert target["scrapePool"] == "rayspec"


@pytest.mark.parametrize(("panel", "query"), list(queries()))
def test_every_query_has_data(scraped: Scraped, panel: str, query: str) -> None:
    asked = resolved(query, interval=f"{RATE_S}s", before=f"{RATE_S}s")
    if panel.startswith("annotation"):
        scraped.server.ask("query", query=asked)  # is valid; nothing was lost
    else:
        assert scraped.server.points(asked, scraped.since, scraped.until) > 0, asked
