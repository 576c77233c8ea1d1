"""What the `serve` command runs, as a module that an interrupt ends.

A shell starts commands in the background with interrupts ignored, and what they start inherits
that: Ctrl-C sent to it would then do nothing.
"""

from __future__ import annotations

import signal

from ray.serve.scripts import cli

__all__: list[str] = []

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    cli()
