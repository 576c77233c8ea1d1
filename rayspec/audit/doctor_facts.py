"""What `rayspec doctor` knows about a machine and an application: gathered once, then only read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any, Literal

from rayspec.config import AppConfig, AppSpec

__all__ = [
    "Application",
    "Finding",
    "Gpu",
    "Gpus",
    "Level",
    "Machine",
    "Model",
    "Port",
    "in_bytes",
]


class Level(IntEnum):
    """How bad a finding is; a problem means that something will not work."""

    PROBLEM = 0
    WARNING = 1
    OK = 2


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; `remedy` is what to do about it, empty if nothing need be done."""

    level: Level
    topic: str
    what: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU as its driver describes it; sizes in bytes."""

    index: int
    name: str
    memory: int
    used: int = 0


@dataclass(frozen=True, slots=True)
class Gpus:
    """All GPUs, and how they are connected.

    `visible` is how many torch sees, None where it was not asked. `peers` are pairs that can access
    each other's memory, `links` what connects a pair (NV18, PIX, SYS), both by index.
    """

    devices: tuple[Gpu, ...] = ()
    driver: str | None = None
    driver_cuda: tuple[int, int] | None = None
    visible: int | None = None
    peers: frozenset[tuple[int, int]] = frozenset()
    links: Mapping[tuple[int, int], str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Machine:
    """This machine: what is installed, and what there is of everything; sizes in bytes.

    `packages` are installed versions, `required` what rayspec asks for, both by name. `hooks` is
    what of vLLM does not fit, None where vLLM is missing. `open_files` are soft and hard limit.
    `token_file` is Ray's token; it is exposed if other users may read it.
    """

    python: str
    system: str
    packages: Mapping[str, str]
    required: Mapping[str, str]
    torch_cuda: str | None
    hooks: tuple[str, ...] | None
    gpus: Gpus
    cores: int
    cpu_flags: frozenset[str]
    memory: int
    memory_free: int
    shm: int
    open_files: tuple[int, int]
    environment: Mapping[str, str]
    compiler: str | None
    token_file: Path | None = None
    token_exposed: bool = False


@dataclass(frozen=True, slots=True)
class Model:
    """Where a model is; `folder` is None if it is not here, and `missing` says why."""

    ref: str
    folder: Path | None = None
    missing: str = ""
    reachable: bool = False
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Port:
    """Where HTTP is to listen; `serving` is an application of ours that answers there already."""

    host: str
    number: int
    state: Literal["free", "taken", "serving", "denied", "no such address"] = "free"


@dataclass(frozen=True, slots=True)
class Application:
    """An application as it would be placed on this machine.

    `difference` says how the tokens of a draft first differ from the target's, None if none do
    or they cannot be compared; `tracing` are the settings of Serve's tracing, None if it is off.
    """

    name: str
    config: AppConfig
    spec: AppSpec
    port: Port
    models: Mapping[str, Model]
    difference: str | None = None
    tracing: Mapping[str, Any] | None = None


def in_bytes(size: float) -> str:
    """Write a size with the unit that suits it."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
