"""The real application, started as a user starts it: `serve run FILE`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import httpx
import psutil
import yaml

ROOT = Path(__file__).resolve().parents[2]
BASE_URL = "http://127.0.0.1:8000"
DASHBOARD_URL = "http://127.0.0.1:8265"
START_TIMEOUT_S = 300.0
STOP_TIMEOUT_S = 120.0


class Application:
    """`serve run deployments/NAME`, or of another file by its path, from its start to Ctrl-C."""

    def __init__(self, name: str | Path, log: Path, env: Mapping[str, str] | None = None) -> None:
        self._file = ROOT / "deployments" / name
        self._log = log
        self._env = dict(env or {})
        self._process: subprocess.Popen[bytes] | None = None
        self.first_answer_s = 0.0

    def __enter__(self) -> Self:
        started = time.monotonic()
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                # What the `serve` command runs; the command itself need not be on the path.
                [sys.executable, "-m", "rayspec.planning.serve_run", "run", self._file],
                cwd=ROOT,
                # Never a cluster that somebody else left, or has, on this machine.
                env={"RAY_ADDRESS": "local", **os.environ, **self._env, "PYTHONPATH": path},
                stdout=log,
                stderr=subprocess.STDOUT,
                # Of its own, so that Ctrl-C is ours to send; but no session of its own: Linux may
                # schedule sessions against each other, and a busy one delay what we ask it.
                process_group=0,
            )
        try:
            self.wait_for(lambda: self.health() is not None, START_TIMEOUT_S)
            self.first_answer_s = time.monotonic() - started
            self.wait_for(self.complete, START_TIMEOUT_S)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Press Ctrl-C, and end what is left after a while."""
        process = self._process
        if process is None:
            return
        tree: list[int] = [process.pid, *(child.pid for child in _children(process.pid))]
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pid in tree:
            if psutil.pid_exists(pid):
                psutil.Process(pid).kill()

    def wait_for(self, condition: Callable[[], Any], timeout_s: float) -> None:
        """Wait until `condition` holds; fails with the end of the log if it never does."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            ended = self._process is None or self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                raise AssertionError(f"the application is not where it should be:\n{self.tail()}")
            time.sleep(0.25)

    def tail(self) -> str:
        """Return the end of what the application printed."""
        return self.printed()[-8000:]

    def printed(self) -> str:
        """Return all that the application printed."""
        return self._log.read_text(errors="replace")

    def health(self) -> dict[str, Any] | None:
        """Return the lanes' state once one can answer."""
        try:
            response = httpx.get(f"{BASE_URL}/health", timeout=10)
        except httpx.HTTPError:
            return None
        return dict(response.json()["lanes"]) if response.status_code == 200 else None

    def complete(self) -> bool:
        """Whether all lanes run and a draft is attached."""
        lanes = self.health() or {}
        running = bool(lanes) and all(lane["replicas"] for lane in lanes.values())
        return running and bool(lanes["speculative"]["draft_attached"])

    def config(self) -> dict[str, Any]:
        """Return the Serve YAML that this was started with."""
        return dict(yaml.safe_load(self._file.read_text()))

    def deploy(self, config: Mapping[str, Any]) -> None:
        """Deploy another Serve YAML over this one: what `serve deploy` sends.

        The command itself takes a minute to start beside busy engines on two cores.
        """
        url = f"{DASHBOARD_URL}/api/serve/applications/"
        httpx.put(url, json=config, timeout=60).raise_for_status()

    def replicas(self) -> dict[str, dict[str, str]]:
        """Return the state of every replica by its id, for each deployment."""
        response = httpx.get(f"{DASHBOARD_URL}/api/serve/applications/", timeout=30)
        deployments = response.raise_for_status().json()["applications"]["rayspec"]["deployments"]
        return {
            name: {replica["replica_id"]: replica["state"] for replica in details["replicas"]}
            for name, details in deployments.items()
        }

    def draft_processes(self) -> list[psutil.Process]:
        """Return the processes of the draft deployment's replicas."""
        return [p for p in psutil.process_iter(["cmdline"]) if _is_draft(p)]

    def processes(self, title: str) -> list[psutil.Process]:
        """Return the application's processes whose command line contains `title`."""
        started = [] if self._process is None else _children(self._process.pid)
        return [process for process in started if title in " ".join(process.cmdline())]

    def metrics(self) -> Iterator[Any]:
        """Return the samples of one scrape."""
        from prometheus_client.parser import text_string_to_metric_families

        text = httpx.get(f"{BASE_URL}/metrics", timeout=30).raise_for_status().text
        for family in text_string_to_metric_families(text):
            yield from family.samples

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's samples that carry `labels`."""
        samples = (s for s in self.metrics() if s.name == name)
        return float(sum(s.value for s in samples if labels.items() <= s.labels.items()))


def _children(pid: int) -> list[psutil.Process]:
    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def _is_draft(process: psutil.Process) -> bool:
    return any(":Draft" in part for part in process.info["cmdline"] or ())
