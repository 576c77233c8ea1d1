"""The verification kernels on a CPU: the CUDA source itself, compiled for the host."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch

from rayspec.ops.verify import launch_verify
from tests.support.verify_cases import Case

__all__ = ["emulated_verify"]

SOURCE = Path(__file__).parent / "emulated" / "emulate.cpp"
OPTIONS = ["-std=c++20", "-O1", "-shared", "-fPIC", "-ffp-contract=off", "-fno-strict-aliasing"]


class Emulator:
    """Launches kernels on the host, one thread after the other."""

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))

    def launch(self, name: str, grid: tuple[int, int], threads: int, arguments: list[Any]) -> None:
        """Run a kernel to its end."""
        addresses = (ctypes.c_void_p * len(arguments))(*map(ctypes.addressof, arguments))
        assert self._library.emulate(name.encode(), *grid, threads, addresses) == 0, name


@lru_cache(maxsize=1)
def emulator() -> Emulator:
    """Compile the kernels for the host; skips where there is no compiler."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("needs g++ to compile the kernels for the host")
    include = Path(__file__).parents[2] / "kernels" / "include"
    folder = Path(tempfile.mkdtemp(prefix="rayspec-emulated-"))
    library = folder / "kernels.so"
    command = [
        compiler,
        *OPTIONS,
        "-Wno-unknown-pragmas",
        f"-I{include}",
        str(SOURCE),
        "-o",
        str(library),
    ]
    subprocess.run(command, check=True, capture_output=True)
    loaded = Emulator(library)
    shutil.rmtree(folder)
    return loaded


def emulated_verify(given: Case) -> tuple[torch.Tensor, torch.Tensor]:
    """Verify a case with the kernels, on the host."""
    return launch_verify(emulator(), 1, given.q, *given.arguments)
