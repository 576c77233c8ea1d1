"""GPUs of this machine, from nvidia-smi and torch."""

from __future__ import annotations

import re
import shutil
import subprocess
from itertools import combinations
from pathlib import Path

from rayspec.audit.doctor_facts import Gpu, Gpus

__all__ = ["gather_gpus", "parse_driver_cuda", "parse_gpus", "parse_links"]

_MIB = 2**20
_TIMEOUT_S = 20.0
_FIELDS = "index,name,memory.total,memory.used,driver_version"
_SIGNS_OF_A_DRIVER = ("/proc/driver/nvidia/version", "/dev/nvidia0", "/dev/dxg")


def gather_gpus() -> Gpus:
    """Return what the driver and torch say; nothing is asked, or imported, without a driver."""
    smi = shutil.which("nvidia-smi")
    if smi is None and not any(Path(sign).exists() for sign in _SIGNS_OF_A_DRIVER):
        return Gpus()
    listing = _ask(smi, f"--query-gpu={_FIELDS}", "--format=csv,noheader,nounits")
    devices, driver = parse_gpus(listing)
    visible, seen, peers = _torch_sees()
    return Gpus(
        devices=devices or seen,
        driver=driver,
        driver_cuda=parse_driver_cuda(_ask(smi)),
        visible=visible,
        peers=peers,
        links=parse_links(_ask(smi, "topo", "-m")),
    )


def parse_gpus(text: str) -> tuple[tuple[Gpu, ...], str | None]:
    """Return GPUs and driver version of a `nvidia-smi --query-gpu` in CSV."""
    devices, driver = [], None
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) != 5 or not cells[0].isdigit():
            continue
        index, name, memory, used, driver = cells
        # A GPU that is cut into parts (MIG), or shares the host's memory, says [N/A].
        sizes = [int(size) * _MIB if size.isdigit() else 0 for size in (memory, used)]
        devices.append(Gpu(int(index), name, *sizes))
    return tuple(devices), driver


def parse_driver_cuda(text: str) -> tuple[int, int] | None:
    """Return the newest CUDA that the driver serves, from the head of `nvidia-smi`."""
    found = re.search(r"CUDA Version:\s*(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else None


def parse_links(text: str) -> dict[tuple[int, int], str]:
    """Return what connects each pair of GPUs, from the matrix of `nvidia-smi topo -m`."""
    links: dict[tuple[int, int], str] = {}
    columns: list[str] = []
    # Its head is underlined by control sequences.
    for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines():
        cells = line.split()
        if not columns and cells[:1] == ["GPU0"] and "X" not in cells:
            columns = [cell for cell in cells if re.fullmatch(r"GPU\d+", cell)]
        elif columns and cells and re.fullmatch(r"GPU\d+", cells[0]):
            row = int(cells[0].removeprefix("GPU"))
            for column, link in zip(columns, cells[1:], strict=False):
                if link != "X":
                    links[row, int(column.removeprefix("GPU"))] = link
    return links


def _ask(smi: str | None, *arguments: str) -> str:
    if smi is None:
        return ""
    try:
        done = subprocess.run(
            [smi, *arguments], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _torch_sees() -> tuple[int | None, tuple[Gpu, ...], frozenset[tuple[int, int]]]:
    try:
        import torch

        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        names = [torch.cuda.get_device_properties(index) for index in range(count)]
        devices = (Gpu(i, str(each.name), int(each.total_memory)) for i, each in enumerate(names))
        pairs = combinations(range(count), 2)
        peers = frozenset(p for p in pairs if torch.cuda.can_device_access_peer(*p))
    except (ImportError, OSError, RuntimeError):
        return None, (), frozenset()
    return count, tuple(devices), peers
