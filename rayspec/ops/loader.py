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
    *(f"rayspec_{stage}_{dtype}" for stage in ("read_rows", "resolve_rows") for dtype in _DTYPES),
    "rayspec_combine",
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


def compile_kernels(arch: str, macros: tuple[str, ...] = ()) -> bytes:
    """Return the machine code for an architecture, from the disk if it was compiled before.

    Processes that ask at the same time compile once. `macros`, such as "RAYSPEC_THREADS=512", are
    for measurements. Raises `KernelError` with what NVRTC said.
    """
    folder = sources()
    path = cache_root().parent / "kernels" / f"{_digest(folder, arch, macros)}.cubin"
    if path.is_file():
        return path.read_bytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.is_file():
            started = time.monotonic()
            code = _nvrtc(folder, arch, macros)
            with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
                file.write(code)
            Path(file.name).replace(path)
            logger.info("compiled the kernels for %s in %.1f s", arch, time.monotonic() - started)
    return path.read_bytes()


def _digest(folder: Path, arch: str, macros: tuple[str, ...]) -> str:
    digest = hashlib.sha256(f"{arch} {_compiler()} {macros}".encode())
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


def _nvrtc(folder: Path, arch: str, macros: tuple[str, ...]) -> bytes:
    try:
        from cuda.core import Program, ProgramOptions
    except ImportError as exc:
        raise KernelError(f"no NVRTC: {exc}") from exc
    options = ProgramOptions(
        name="rayspec.cu",
        arch=arch,
        std="c++17",
        include_path=[str(folder / "include")],
        define_macro=list(macros) or None,
    )
    source = (folder / _ENTRY).read_text(encoding="utf-8")
    try:
        code = Program(source, "c++", options).compile("cubin").code
    except Exception as exc:
        raise KernelError(f"NVRTC does not compile the kernels for {arch}: {exc}") from exc
    if not isinstance(code, bytes):
        raise KernelError("NVRTC gave no machine code")
    return code


# cuda.h, CUDA 12 and 13: CUlaunchAttributeID, CUlaunchAttribute and CUlaunchConfig.
_PROGRAMMATIC_STREAM_SERIALIZATION: Final = 6


class _Attribute(ctypes.Structure):
    _fields_ = (("id", ctypes.c_uint), ("pad", ctypes.c_uint), ("value", ctypes.c_int * 16))


class _Config(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_uint) for name in ("grid_x", "grid_y", "grid_z")),
        *((name, ctypes.c_uint) for name in ("block_x", "block_y", "block_z", "shared_bytes")),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.c_void_p),
        ("count", ctypes.c_uint),
    )


class Module:
    """The kernels on a device, ready to be launched. A `rayspec.ops.launch.Launcher`."""

    def __init__(self, code: bytes, device: torch.device, threads: int = 256) -> None:
        properties = torch.cuda.get_device_properties(device)
        self.multiprocessors = properties.multi_processor_count
        self.threads = threads
        self._index = torch.cuda.current_device() if device.index is None else device.index
        self._driver = ctypes.CDLL("libcuda.so.1")
        # Programmatic dependent launch: a kernel's blocks start while the one before it ends.
        self._early = _Attribute(_PROGRAMMATIC_STREAM_SERIALIZATION, 0, (1,))
        self.starts_early = properties.major >= 9
        library = ctypes.c_void_p()
        self._call("cuLibraryLoadData", ctypes.byref(library), code, None, None, 0, None, None, 0)
        self._kernels: dict[str, ctypes.c_void_p] = {}
        for name in _NAMES:
            kernel, function = ctypes.c_void_p(), ctypes.c_void_p()
            self._call("cuLibraryGetKernel", ctypes.byref(kernel), library, name.encode())
            # Loaded lazily they would wait for the device at their first launch.
            self._call("cuKernelGetFunction", ctypes.byref(function), kernel)
            self._kernels[name] = function

    def launch(
        self,
        name: str,
        grid: tuple[int, int],
        threads: int,
        argument: ctypes.Array[ctypes.c_char],
        *,
        early: bool = False,
    ) -> None:
        """Launch on torch's current stream; the driver copies the argument."""
        early = early and self.starts_early
        config = _Config(
            *(grid[0], grid[1], 1),
            *(threads, 1, 1),
            0,
            torch._C._cuda_getCurrentRawStream(self._index),
            ctypes.addressof(self._early) if early else None,
            int(early),
        )
        pointer = ctypes.c_void_p(ctypes.addressof(argument))
        self._call(
            "cuLaunchKernelEx",
            ctypes.byref(config),
            self._kernels[name],
            ctypes.byref(pointer),
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
