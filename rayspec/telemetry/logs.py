"""Makes rayspec's log lines visible in a Serve replica."""

from __future__ import annotations

import logging
import sys

__all__ = ["configure"]

_FORMAT = "%(levelname)s %(asctime)s %(name)s: %(message)s"


def configure(level: int = logging.INFO) -> None:
    """Print what `rayspec` loggers say to standard error; again does nothing.

    Serve sets up its own logger only, and vLLM its own; Ray collects standard error.
    """
    logger = logging.getLogger("rayspec")
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter(_FORMAT))
        logger.addHandler(handler)
        logger.setLevel(level)
        logger.propagate = False
