"""Compiles the CUDA kernels of `kernels/` when they are first used, and launches them.

NVRTC compiles them, so nobody needs a CUDA toolkit; the machine code is kept on disk by everything
that it depends on: sources, architecture, options and compiler.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import logging
import os
import tempfile
import time
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import torch

from rayspec.models.cache import cache_root

__all__ = ["KernelError", "Module", "architecture", "compile_kernels", "load", "sources"]

logger = logging.getLogger(__name__)

# Where the sources are in an installed package, and in a checkout.
_PLACES: Final = (
    Path(__file__).resolve().parents[1] / "_kernels",
    Path(__file__).resolve().parents[2] / "kernels",
)
_ENTRY: Final = "csrc/verify.cu"
_DTYPES: Final = ("bfloat16", "float16", "float32")
_NAMES: Final = (
    "rayspec_prepare",
    *(f"rayspec_{stage}_{dtype}" for stage in ("row_stats", "resolve") for dtype in _DTYPES),
)


class KernelError(RuntimeError):
    """The kernels cannot be compiled, loaded or launched here."""


def sources() -> Path:
    """Return the folder of the CUDA sources; `KernelError` where they are missing."""
    for place in _PLACES:
        if (place / _ENTRY).is_file():
            return place
    raise KernelError("the CUDA sources are not installed")


def architecture(device: torch.device) -> str:
    """Return the name of a device's architecture, such as "sm_90"."""
    major, minor = torch.cuda.get_device_capability(device)
    return f"sm_{major}{minor}"


def compile_kernels(arch: str) -> bytes:
    """Return the machine code for an architecture, from the disk if it was compiled before.

    Processes that ask at the same time compile once. Raises `KernelError` with what NVRTC said.
    """
    folder = sources()
    path = cache_root().parent / "kernels" / f"{_digest(folder, arch)}.cubin"
    if path.is_file():
        return path.read_bytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.is_file():
            started = time.monotonic()
            code = _nvrtc(folder, arch)
            with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
                file.write(code)
            Path(file.name).replace(path)
            logger.info("compiled the kernels for %s in %.1f s", arch, time.monotonic() - started)
    return path.read_bytes()


def _digest(folder: Path, arch: str) -> str:
    digest = hashlib.sha256(f"{arch} {_compiler()}".encode())
    for path in sorted(folder.rglob("*.cu*")):
        digest.update(path.relative_to(folder).as_posix().encode())
        digest.update(path.read_bytes())
    return f"{arch}-{digest.hexdigest()[:24]}"


def _compiler() -> str:
    versions = []
    for name in ("cuda-core", "nvidia-cuda-nvrtc"):
        try:
            versions.append(metadata.version(name))
        except metadata.PackageNotFoundError:
            versions.append("?")
    return " ".join(versions)


def _nvrtc(folder: Path, arch: str) -> bytes:
    try:
        from cuda.core import Program, ProgramOptions
    except ImportError as exc:
        raise KernelError(f"no NVRTC: {exc}") from exc
    options = ProgramOptions(
        name="rayspec.cu", arch=arch, std="c++17", include_path=[str(folder / "include")]
    )
    source = (folder / _ENTRY).read_text(encoding="utf-8")
    try:
        code = Program(source, "c++", options).compile("cubin").code
    except Exception as exc:
        raise KernelError(f"NVRTC does not compile the kernels for {arch}: {exc}") from exc
    if not isinstance(code, bytes):
        raise KernelError("NVRTC gave no machine code")
    return code


class Module:
    """The kernels on a device, ready to be launched. A `rayspec.ops.verify.Launcher`."""

    def __init__(self, code: bytes, device: torch.device) -> None:
        self.multiprocessors = torch.cuda.get_device_properties(device).multi_processor_count
        self._device = device
        self._driver = ctypes.CDLL("libcuda.so.1")
        self._code = code
        library = ctypes.c_void_p()
        self._call("cuLibraryLoadData", ctypes.byref(library), code, None, None, 0, None, None, 0)
        self._kernels: dict[str, ctypes.c_void_p] = {}
        for name in _NAMES:
            kernel = self._kernels[name] = ctypes.c_void_p()
            self._call("cuLibraryGetKernel", ctypes.byref(kernel), library, name.encode())
            # Loaded lazily they would wait for the device at their first launch.
            function = ctypes.c_void_p()
            self._call("cuKernelGetFunction", ctypes.byref(function), kernel)
            self._kernels[name] = function

    def launch(self, name: str, grid: tuple[int, int], threads: int, arguments: list[Any]) -> None:
        """Launch on torch's current stream; `arguments` are ctypes values."""
        addresses = (ctypes.c_void_p * len(arguments))(*map(ctypes.addressof, arguments))
        stream = ctypes.c_void_p(torch.cuda.current_stream(self._device).cuda_stream)
        self._call(
            "cuLaunchKernel",
            self._kernels[name],
            *(grid[0], grid[1], 1),
            *(threads, 1, 1),
            0,
            stream,
            addresses,
            None,
        )

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._driver, name)(*arguments)
        if status != 0:
            text = ctypes.c_char_p()
            self._driver.cuGetErrorString(status, ctypes.byref(text))
            raise KernelError(f"{name}: {(text.value or b'?').decode()} ({status})")


def load(device: torch.device) -> Module:
    """Return the kernels for a device, which becomes torch's current one while they load."""
    index = torch.cuda.current_device() if device.index is None else device.index
    return _load(index, os.getpid())


@lru_cache(maxsize=16)
def _load(index: int, pid: int) -> Module:
    device = torch.device("cuda", index)
    with torch.cuda.device(device):
        torch.cuda.current_stream().synchronize()  # There is a context from here on.
        return Module(compile_kernels(architecture(device)), device)
