"""What is fast on this machine's processor, and which cores an engine may have."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

__all__ = ["CpuShare", "bind_cores", "fastest_dtype"]

_CPUINFO = Path("/proc/cpuinfo")
_BIND = "VLLM_CPU_OMP_THREADS_BIND"


@dataclass(frozen=True, slots=True)
class CpuShare:
    """Engine number `index` of `total` that share the machine's cores."""

    index: int
    total: int

    def of_replica(self, rank: int, replicas: int) -> CpuShare:
        """Return the share of a lane's replica, where this is its first one's.

        Ranks from `replicas` on are those of successors, which start beside the replicas that they
        replace and share their cores until those stop.
        """
        return replace(self, index=self.index + rank % replicas)

    def cores(self, available: Sequence[int]) -> list[int]:
        """Return this engine's cores: equal runs, or single ones taken in turn if too few."""
        if self.total > len(available):
            return [available[self.index % len(available)]]
        start = self.index * len(available) // self.total
        stop = (self.index + 1) * len(available) // self.total
        return list(available[start:stop])


def bind_cores(share: CpuShare, workers: int) -> None:
    """Give the vLLM engine of this process its cores, unless the environment says which.

    Left alone, vLLM binds every engine to the same cores, and OpenMP teams of two engines that
    share cores spend their time spinning at barriers: over 50 times slower on two cores.
    """
    if _BIND in os.environ:
        return
    cores = share.cores(sorted(os.sched_getaffinity(0)))
    parts = [CpuShare(index, workers).cores(cores) for index in range(workers)]
    os.environ[_BIND] = "|".join(",".join(map(str, part)) for part in parts)


def fastest_dtype(cpuinfo: Path = _CPUINFO) -> str:
    """Return bfloat16 where the processor computes in it, else float32."""
    try:
        text = cpuinfo.read_text()
    except OSError:
        return "float32"
    flags = next((line.split() for line in text.splitlines() if line.startswith("flags")), [])
    return "bfloat16" if {"amx_bf16", "avx512_bf16"} & set(flags) else "float32"
