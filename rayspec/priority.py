"""Notices where what serves has a lower priority than everything else on its machine.

Ray starts its workers at niceness 15 (Ray 2.60, `RAY_worker_niceness` where Ray is started). Each
other process that computes then gets 28 times as much of a core as one of ours, and an engine whose
threads are bound to that core stands still for seconds (load_tests/stalls.py).
"""

from __future__ import annotations

import logging
import os

__all__ = ["NICENESS", "warn_if_low"]

logger = logging.getLogger(__name__)

NICENESS = "RAY_worker_niceness"
"""The variable that Ray reads where it is started."""


def warn_if_low(niceness: int | None = None) -> None:
    """Log a warning if this process, or one of `niceness`, gives way to all others."""
    found = os.nice(0) if niceness is None else niceness
    if found > 0:
        logger.warning(
            "this replica runs at niceness %d: other processes on this machine delay its answers "
            "by seconds; set %s=0 where Ray is started",
            found,
            NICENESS,
        )
