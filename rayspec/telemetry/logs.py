"""Makes rayspec's log lines visible in a Serve replica, as text or JSON. Read at Ray 2.60.0.

Serve sets up its own logger only. Where its configuration asks for JSON (`logging_config` with
`encoding: JSON`), rayspec's lines are JSON as well, in Serve's log file and on standard error, with
the request's id and the ids of its trace.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from logging.handlers import MemoryHandler

from ray._common.formatters import JSONFormatter

from rayspec.telemetry import spans

__all__ = ["configure"]

_FORMAT = "%(levelname)s %(asctime)s %(name)s: %(message)s"
_SERVE = "ray.serve"


class _TraceIds(logging.Filter):
    """Adds the ids of the current trace to a line."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every line pass."""
        if (found := spans.ids()) is not None:
            record.trace_id, record.span_id = found
        return True


def configure(level: int = logging.INFO) -> bool:
    """Let the lines of `rayspec` loggers out; return whether they are JSON. Again does nothing.

    Ray collects standard error.
    """
    logger = logging.getLogger("rayspec")
    files = list(_json_files())
    if not logger.handlers:
        ids = _TraceIds()
        stream = logging.StreamHandler(sys.stderr)
        stream.setFormatter(JSONFormatter() if files else logging.Formatter(_FORMAT))
        stream.addFilter(ids)
        for serves in files[0].filters if files else ():
            stream.addFilter(serves)  # these add the request's id, the replica and the like
        for file in files:
            file.addFilter(ids)  # Serve's own lines have them then, too
            logger.addHandler(file)
        logger.addHandler(stream)
        logger.setLevel(level)
        logger.propagate = False
    return bool(files)


def _json_files() -> Iterator[MemoryHandler]:
    """Return Serve's handlers that write JSON to a file; none where it writes text."""
    for handler in logging.getLogger(_SERVE).handlers:
        if isinstance(handler, MemoryHandler):
            formatter = None if handler.target is None else handler.target.formatter
            if isinstance(formatter, JSONFormatter):
                yield handler
