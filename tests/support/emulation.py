"""The verification kernels on a CPU: the CUDA source itself, compiled for the host."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

import pytest
import torch

from rayspec.ops.batch import Batch
from rayspec.ops.launch import launch_verify

__all__ = ["emulated_verify"]

SOURCE = Path(__file__).parent / "emulated" / "emulate.cpp"
OPTIONS = ["-std=c++20", "-O1", "-shared", "-fPIC", "-ffp-contract=off", "-fno-strict-aliasing"]


class Emulator:
    """Launches kernels on the host, one thread after the other."""

    threads = 256
    multiprocessors = 1

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))

    def launch(
        self,
        name: str,
        grid: tuple[int, int],
        threads: int,
        argument: ctypes.Array[ctypes.c_char],
        *,
        early: bool = False,
    ) -> None:
        """Run a kernel to its end."""
        addresses = (ctypes.c_void_p * 1)(ctypes.addressof(argument))
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


def emulated_verify(given: Batch, *, apart: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Verify a batch with the kernels, on the host."""
    return launch_verify(emulator(), given, apart=apart)
