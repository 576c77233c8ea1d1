"""The command line: one module per command, heavy imports inside them."""

from rayspec.cli.main import app, main

__all__ = ["app", "main"]
