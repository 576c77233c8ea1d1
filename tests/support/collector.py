"""The collector of the tests: starts `otlp_receiver` and reads the traces that it got."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

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
    protocol: str


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
    """A collector process in a folder."""

    def __init__(self, folder: Path) -> None:
        self._spans = folder / "spans.jsonl"
        self._ports = folder / "ports.json"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._spans.touch()
        module = [sys.executable, "-m", "tests.support.otlp_receiver"]
        self._process = subprocess.Popen(
            [*module, "--spans", self._spans, "--ports", self._ports],
            cwd=ROOT,
            env=dict(os.environ, PYTHONPATH=str(ROOT)),
        )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._ports.exists():
            assert self._process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()

    def environment(self, protocol: str) -> dict[str, str]:
        """Return the standard variables that send traces here."""
        port = json.loads(self._ports.read_text())[protocol]
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_BSP_SCHEDULE_DELAY": "200",
        }

    def spans(self) -> list[Span]:
        """Return all spans so far."""
        lines = self._spans.read_text().split("\n")[:-1]
        return [Span(**json.loads(line)) for line in lines]

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
