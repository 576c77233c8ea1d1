"""What the `serve` command runs, as a module that an interrupt ends.

A shell starts commands in the background with interrupts ignored, and what they start inherits
that: Ctrl-C sent to it would then do nothing. And Ray would start what serves at a priority lower
than that of everything else on the machine: see `rayspec.priority`.
"""

from __future__ import annotations

import os
import signal

from ray.serve.scripts import cli

from rayspec.priority import NICENESS

__all__: list[str] = []

if __name__ == "__main__":
    os.environ.setdefault(NICENESS, "0")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    cli()
