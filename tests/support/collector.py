"""The collector of the tests: rotel, an OpenTelemetry collector, and what it exports.

The application sends to rotel over gRPC or HTTP; rotel exports by OTLP to `otlp_receiver`, which
keeps the spans in a file, as a tracing backend would.
"""

from __future__ import annotations

import importlib.resources
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

from tests.support.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Span:
    trace_id: str
    span_id: str
    parent_id: str
    name: str
    kind: int
    scope: str
    resource: dict[str, Any]
    attributes: dict[str, Any]
    start_ns: int
    end_ns: int
    status: int
    message: str


@dataclass
class Trace:
    """The spans of one trace, as a tree."""

    spans: list[Span] = field(default_factory=list)

    def named(self, name: str) -> Span:
        (span,) = (span for span in self.spans if span.name == name)
        return span

    def all_named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]

    def ancestors(self, span: Span) -> list[Span]:
        """Return the spans over `span` that are here, the nearest first."""
        by_id = {each.span_id: each for each in self.spans}
        found: list[Span] = []
        while (parent := by_id.get(span.parent_id)) is not None:
            found.append(parent)
            span = parent
        return found

    def roots(self) -> list[Span]:
        ids = {span.span_id for span in self.spans}
        return [span for span in self.spans if span.parent_id not in ids]

    def __str__(self) -> str:
        lines: list[str] = []

        def show(span: Span, depth: int) -> None:
            lines.append(f"{'  ' * depth}{span.name} [{span.scope}] {span.attributes}")
            below = [each for each in self.spans if each.parent_id == span.span_id]
            for each in sorted(below, key=lambda each: each.start_ns):
                show(each, depth + 1)

        for root in self.roots():
            show(root, 0)
        return "\n".join(lines)


class Collector:
    """A collector, and behind it a receiver that keeps what it exports; both work in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._spans = folder / "spans.jsonl"
        self._ports = {"grpc": free_port(), "http/protobuf": free_port()}
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        try:
            self._start(self._receive())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            process.wait(30)

    def _receive(self) -> int:
        """Start the receiver; returns its HTTP port."""
        port = self._folder / "port"
        self._spans.touch()
        module = [sys.executable, "-m", "tests.support.otlp_receiver"]
        environment = dict(os.environ, PYTHONPATH=str(ROOT))
        command = [*module, "--spans", str(self._spans), "--port", str(port)]
        receiver = subprocess.Popen(command, cwd=ROOT, env=environment)
        self._processes.append(receiver)
        self._await(receiver, port.exists)
        return int(port.read_text())

    def _start(self, backend: int) -> None:
        """Start the collector, exporting to HTTP port `backend`, and wait until it listens."""
        options = {
            "--pid-file": self._folder / "rotel.pid",
            "--log-file": self._folder / "rotel.log",
            "--otlp-grpc-endpoint": f"127.0.0.1:{self._ports['grpc']}",
            "--otlp-http-endpoint": f"127.0.0.1:{self._ports['http/protobuf']}",
            "--exporter": "otlp",
            "--otlp-exporter-endpoint": f"http://127.0.0.1:{backend}",
            "--otlp-exporter-protocol": "http",
            "--batch-timeout": "200ms",
        }
        words = [str(word) for option in options.items() for word in option]
        agent = importlib.resources.files("rotel") / "rotel-agent"
        with (self._folder / "rotel.out").open("wb") as printed:
            collector = subprocess.Popen(
                [str(agent), "start", *words], stdout=printed, stderr=subprocess.STDOUT
            )
        self._processes.append(collector)
        for port in self._ports.values():
            self._await(collector, partial(_listens, port))

    def _await(self, process: subprocess.Popen[bytes], ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not ready():
            assert process.poll() is None, process.args
            assert time.monotonic() < deadline, process.args
            time.sleep(0.05)

    def environment(self, protocol: str) -> dict[str, str]:
        """Return the standard variables that send traces here."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self._ports[protocol]}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_BSP_SCHEDULE_DELAY": "200",
        }

    def spans(self) -> list[Span]:
        """Return all spans so far."""
        lines = self._spans.read_text().split("\n")[:-1]
        return [Span(**json.loads(line)) for line in lines]

    def received(self, count: int, timeout_s: float = 20) -> list[Span]:
        """Return all spans once there are `count`."""
        deadline = time.monotonic() + timeout_s
        while len(spans := self.spans()) < count:
            assert time.monotonic() < deadline, spans
            time.sleep(0.05)
        return spans

    def trace(
        self, trace_id: str, *names: str, under: str | None = None, timeout_s: float = 20
    ) -> Trace:
        """Return the trace once it has spans with all of `names`, and all are below `under`.

        Every process exports its spans by itself, so that those above may come last.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            trace = Trace([span for span in self.spans() if span.trace_id == trace_id])
            missing = set(names) - {span.name for span in trace.spans}
            tops = {span.parent_id for span in trace.roots()}
            if not missing and (under is None or tops == {under}):
                return trace
            if time.monotonic() > deadline:
                raise AssertionError(f"no span {missing}, tops under {tops} in\n{trace}")
            time.sleep(0.1)


def _listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0
