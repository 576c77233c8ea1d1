"""The exceptions that mean that nobody waits for an answer any more. Read at Ray 2.60.0."""

from __future__ import annotations

import asyncio

from ray.exceptions import TaskCancelledError
from ray.serve.exceptions import RequestCancelledError

__all__ = ["CANCELLED", "DISCONNECTED"]

# Which of them it is depends on what the task was awaiting when its client left.
CANCELLED = (asyncio.CancelledError, GeneratorExit, TaskCancelledError, RequestCancelledError)

# What such an ending is called in traces, metrics and log lines.
DISCONNECTED = "disconnected"
