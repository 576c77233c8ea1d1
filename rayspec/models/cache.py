"""A folder of models that are built once and verified on every later use.

Each entry `<root>/<name>/` carries `rayspec.json`: where it came from and, for every file, size,
SHA-256 and modification time. A file whose size and time are unchanged is trusted, any other is
hashed again, so using an entry costs a few `stat` calls and a damaged entry is built anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

MANIFEST = "rayspec.json"
_FORMAT = 1

Builder = Callable[[Path], str]
"""Fills an empty folder with a model and returns one line saying where it came from."""


def cache_root() -> Path:
    """Return the folder of converted models: `RAYSPEC_CACHE`, else below `~/.cache`."""
    configured = os.environ.get("RAYSPEC_CACHE")
    root = Path(configured) if configured else Path.home() / ".cache" / "rayspec"
    return root.expanduser().absolute() / "models"


def lookup(name: str) -> Path | None:
    """Return the folder of entry `name` if it is complete and undamaged."""
    folder = cache_root() / name
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as exc:
        logger.warning("ignoring %s: its %s cannot be read: %s", folder, MANIFEST, exc)
        return None
    damage = _first_damage(folder, manifest)
    if damage:
        logger.warning("ignoring %s: %s", folder, damage)
        return None
    return folder


def source(folder: Path) -> str:
    """Return the line saying where a cached entry came from."""
    return str(json.loads((folder / MANIFEST).read_text())["source"])


def ensure(name: str, build: Builder) -> Path:
    """Return the folder of entry `name`, building it first if it is absent or damaged.

    Processes that ask at the same time build it once; nobody ever sees a half-built folder.
    """
    found = lookup(name)
    if found:
        return found
    root = cache_root()
    root.mkdir(parents=True, exist_ok=True)
    with _locked(root / f".{name}.lock"):
        found = lookup(name)  # another process may have built it while this one waited
        if found:
            return found
        _remove_abandoned(root, name)
        work = Path(tempfile.mkdtemp(prefix=f".{name}.building-", dir=root))
        try:
            _write_manifest(work, build(work))
            _make_readable(work)
            shutil.rmtree(root / name, ignore_errors=True)
            work.rename(root / name)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return root / name


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _remove_abandoned(root: Path, name: str) -> None:
    # Only ever called under the lock, so whatever is left was left by a process that died.
    for folder in root.glob(f".{name}.building-*"):
        shutil.rmtree(folder, ignore_errors=True)


def _make_readable(folder: Path) -> None:
    # safetensors and mkdtemp keep everybody else out, but a cache may be shared between users.
    folder.chmod(0o755)
    for path in folder.iterdir():
        path.chmod(0o755 if path.is_dir() else 0o644)


def _write_manifest(folder: Path, origin: str) -> None:
    files = {p.name: _describe(p) for p in sorted(folder.iterdir()) if p.is_file()}
    manifest = {"format": _FORMAT, "source": origin, "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")


def _describe(path: Path) -> dict[str, Any]:
    stat = path.stat()
    return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": sha256(path)}


def _first_damage(folder: Path, manifest: dict[str, Any]) -> str | None:
    if manifest.get("format") != _FORMAT:
        return f"format {manifest.get('format')!r} is not {_FORMAT}"
    for name, expected in manifest["files"].items():
        path = folder / name
        try:
            stat = path.stat()
        except FileNotFoundError:
            return f"{name} is missing"
        if stat.st_size != expected["size"]:
            return f"{name} has {stat.st_size} bytes instead of {expected['size']}"
        if stat.st_mtime_ns != expected["mtime_ns"] and sha256(path) != expected["sha256"]:
            return f"{name} does not have the recorded SHA-256"
    return None


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
