"""Log lines in a process whose Serve logger is set up as a replica's is."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from logging.handlers import MemoryHandler
from pathlib import Path

import pytest
from ray._common.formatters import JSONFormatter

from rayspec.telemetry import logs, spans

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


class _Replica(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.replica = "mine"
        return True


@pytest.fixture
def serve_log(tmp_path: Path) -> Iterator[MemoryHandler]:
    serve, ours = logging.getLogger("ray.serve"), logging.getLogger("rayspec")
    kept = [(each, each.handlers[:], each.propagate, each.level) for each in (serve, ours)]
    file = logging.FileHandler(tmp_path / "log")
    handler = MemoryHandler(1, target=file)
    handler.addFilter(_Replica())
    serve.handlers, ours.handlers = [handler], []
    yield handler
    file.close()
    for logger, handlers, propagate, level in kept:
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


def test_lines_are_json_where_serves_are(
    serve_log: MemoryHandler, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert serve_log.target is not None
    serve_log.target.setFormatter(JSONFormatter())
    assert logs.configure()
    assert logs.configure()

    with spans.entered({"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}):
        logging.getLogger("rayspec.any").info("hello %d", 1, extra={"lane": "plain"})

    written = (tmp_path / "log").read_text()
    for text in (written, capsys.readouterr().err):
        (line,) = text.splitlines()
        found = json.loads(line)
        assert (found["message"], found["lane"], found["replica"]) == ("hello 1", "plain", "mine")
        assert (found["trace_id"], found["span_id"]) == (TRACE, "00f067aa0ba902b7")


def test_lines_are_text_otherwise(
    serve_log: MemoryHandler, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not logs.configure()
    logging.getLogger("rayspec.any").info("hello", extra={"lane": "plain"})
    assert capsys.readouterr().err.endswith(" rayspec.any: hello\n")
    assert (tmp_path / "log").read_text() == ""
