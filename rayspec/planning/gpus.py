"""GPUs by name: memory, bandwidth and arithmetic, as their makers state them (dense, per GPU)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from rayspec.errors import ConfigError

__all__ = ["PRESETS", "Gpu", "find_gpu"]


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU: bytes, bytes per second, and floating-point operations per second."""

    name: str
    memory: int
    bandwidth: float
    flops16: float
    flops8: float

    def flops(self, weight_bytes: float) -> float:
        """Return the arithmetic for weights of that many bytes."""
        return self.flops8 if weight_bytes <= 1 else self.flops16


PRESETS: Final = {
    gpu.name: gpu
    for gpu in (
        Gpu("b200", 180 * 10**9, 8.0e12, 2.25e15, 4.5e15),
        Gpu("h200", 141 * 10**9, 4.8e12, 989e12, 1979e12),
        Gpu("h100", 80 * 10**9, 3.35e12, 989e12, 1979e12),
        Gpu("a100", 80 * 10**9, 2.04e12, 312e12, 312e12),
        Gpu("l40s", 48 * 10**9, 0.864e12, 362e12, 733e12),
        Gpu("l4", 24 * 10**9, 0.3e12, 121e12, 242e12),
        Gpu("rtx4090", 24 * 10**9, 1.008e12, 165e12, 330e12),
    )
}


def find_gpu(name: str, memory_gb: float | None = None) -> Gpu:
    """Return a preset, with other memory if given."""
    gpu = PRESETS.get(name.lower())
    if gpu is None:
        raise ConfigError("gpu", name, f"is none of {', '.join(PRESETS)}; take the closest one")
    return gpu if memory_gb is None else replace(gpu, memory=int(memory_gb * 1e9))
