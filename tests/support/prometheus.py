"""A real Prometheus that scrapes the application, and the queries of the dashboard."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
import yaml

from tests.support.application import ROOT
from tests.support.ports import free_port

__all__ = ["DASHBOARD", "Prometheus", "queries", "resolved"]

DASHBOARD = ROOT / "cluster" / "grafana" / "rayspec.json"
CONFIGURATION = ROOT / "cluster" / "prometheus.yaml"
_START_TIMEOUT_S = 30.0


class Prometheus:
    """`prometheus` with the shipped configuration, every two seconds and at another target.

    Skips the test where there is no Prometheus.
    """

    def __init__(self, folder: Path, target: str) -> None:
        binary = shutil.which("prometheus")
        if binary is None:
            pytest.skip("needs Prometheus: install Debian's package prometheus")
        shipped = yaml.safe_load(CONFIGURATION.read_text())
        shipped["global"]["scrape_interval"] = "2s"
        (job,) = shipped["scrape_configs"]
        job["static_configs"] = [{"targets": [target]}]
        file = folder / "prometheus.yaml"
        file.write_text(yaml.safe_dump(shipped))
        self._port = free_port()
        self._log = folder / "log"
        self._command = [
            binary,
            f"--config.file={file}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self._port}",
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self._ready():
            if time.monotonic() > deadline or self._process.poll() is not None:
                self.__exit__()
                raise AssertionError(f"Prometheus does not start:\n{self._log.read_text()}")
            time.sleep(0.2)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)

    def _ready(self) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self._port}/-/ready").status_code == 200
        except httpx.HTTPError:
            return False

    def ask(self, path: str, **parameters: Any) -> Any:
        """Return the data of an answer of the HTTP API; an invalid query raises."""
        url = f"http://127.0.0.1:{self._port}/api/v1/{path}"
        answer = httpx.get(url, params=parameters, timeout=30).json()
        if answer["status"] != "success":
            raise AssertionError(f"{parameters}: {answer['error']}")
        return answer["data"]

    def points(self, query: str, since: float, until: float) -> int:
        """Return how many finite values a query has between two times, in seconds of the epoch."""
        data = self.ask("query_range", query=query, start=since, end=until, step=1)
        values = (float(value) for series in data["result"] for _, value in series["values"])
        return sum(abs(value) < float("inf") for value in values)


def queries() -> Iterator[tuple[str, str]]:
    """Yield every query of the dashboard, with the title of its panel."""
    dashboard = json.loads(DASHBOARD.read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    for annotation in dashboard["annotations"]["list"]:
        if "expr" in annotation:
            yield f"annotation {annotation['name']}", annotation["expr"]


def resolved(query: str, *, interval: str, before: str) -> str:
    """Return a query with the variables as Grafana fills them in."""
    for name, value in (("__rate_interval", interval), ("before", before), ("class", ".*")):
        query = query.replace(f"${name}", value)
    return query
