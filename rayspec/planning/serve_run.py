"""What the `serve` command runs, as a module that an interrupt ends, traced if `OTEL_*` say so.

A shell starts commands in the background with interrupts ignored, and what they start inherits
that: Ctrl-C sent to it would then do nothing. And Ray would start what serves at a priority lower
than that of everything else on the machine: see `rayspec.priority`.
"""

from __future__ import annotations

import os
import signal

from rayspec.priority import NICENESS
from rayspec.telemetry.environment import for_serve

__all__: list[str] = []

if __name__ == "__main__":
    os.environ.setdefault(NICENESS, "0")
    os.environ.update(for_serve(os.environ))  # before Ray reads them, and what it starts
    from ray.serve.scripts import cli

    signal.signal(signal.SIGINT, signal.default_int_handler)
    cli()
