"""Resolves what a configuration calls a model to a folder on this machine."""

from __future__ import annotations

from pathlib import Path

from rayspec.errors import ModelError
from rayspec.models import cache, hub, smollm2

ALIASES = {smollm2.ALIAS: smollm2.build}
"""Names that rayspec itself knows, and what builds each."""


def resolve(ref: str, *, progress: bool = False) -> Path:
    """Return the folder of a model, fetching it if needed.

    `ref` is an alias (`smollm2`), the path of a folder with `config.json`, or a Hugging Face id.
    A path that exists wins over an id; `progress` draws bars on standard error.
    """
    if ref in ALIASES:
        build = ALIASES[ref]
        return cache.ensure(ref, lambda folder: build(folder, progress=progress))
    path = Path(ref).expanduser()
    if path.exists():
        if not (path / "config.json").is_file():
            raise ModelError(f"{ref} is not a model folder: it has no config.json")
        return path.absolute()
    if not hub.looks_like_id(ref):
        raise ModelError(
            f"{ref!r} is neither a folder here nor a Hugging Face id nor an alias "
            f"({', '.join(ALIASES)})"
        )
    return hub.snapshot(ref, progress=progress)
