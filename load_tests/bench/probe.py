"""Names, memory and copy bandwidth of GPUs, found out by a process that then lets go of them.

`python -m load_tests.bench.probe` prints them as JSON, in the order of CUDA_VISIBLE_DEVICES.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from load_tests.bench.process import ROOT, visible_devices

__all__ = ["Gpu", "probe"]

COPY_BYTES = 1 << 30
REPEATS = 10


@dataclass(frozen=True)
class Gpu:
    """One GPU; a copy counts the bytes read and the bytes written."""

    name: str
    total_bytes: int
    copy_bytes_per_s: float


def probe(devices: Sequence[int]) -> list[Gpu]:
    """Return what the GPUs `devices` are; raises CalledProcessError without them."""
    done = subprocess.run(
        [sys.executable, "-m", "load_tests.bench.probe"],
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": visible_devices(devices)},
        stdout=subprocess.PIPE,
        check=True,
    )
    return [Gpu(**fields) for fields in json.loads(done.stdout)]


def _measure(index: int) -> Gpu:
    import torch

    source = torch.empty(COPY_BYTES, dtype=torch.uint8, device=f"cuda:{index}")
    target = torch.empty_like(source)
    target.copy_(source)
    best = float("inf")
    for _ in range(REPEATS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        with torch.cuda.device(index):
            start.record()
            target.copy_(source)
            end.record()
        end.synchronize()
        best = min(best, start.elapsed_time(end) / 1e3)
    properties = torch.cuda.get_device_properties(index)
    return Gpu(properties.name, properties.total_memory, 2 * COPY_BYTES / best)


def main() -> int:
    """Print the visible GPUs."""
    import torch

    sys.stdout.write(json.dumps([asdict(_measure(i)) for i in range(torch.cuda.device_count())]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
