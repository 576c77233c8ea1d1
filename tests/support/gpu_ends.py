"""The two ends of a link on GPUs: on two of them where there are two, else on the one there is.

NCCL refuses two ranks on one device unless they seem to be on different hosts; then it goes through
sockets, and without a process scheduler on the device the two take turns, so nothing is quick.
"""

from __future__ import annotations

import os

import torch

__all__ = ["DEADLINE_S", "draft_environment", "target_environment"]

# Two processes on one GPU take turns of milliseconds; a miss in a test should mean that the draft
# is gone.
DEADLINE_S = 1.0


def target_environment() -> dict[str, str]:
    """Return what a process with the target's end needs in its environment."""
    return {} if _two() else _as_host("target")


def draft_environment() -> dict[str, str]:
    """Return what a process with the draft's end needs; its device is `cuda:0` either way."""
    if not _two():
        return _as_host("draft")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0,1").split(",")
    return {"CUDA_VISIBLE_DEVICES": visible[1]}


def _two() -> bool:
    return bool(torch.cuda.device_count() > 1)


def _as_host(name: str) -> dict[str, str]:
    return {
        "NCCL_HOSTID": f"rayspec-test-{name}",
        "NCCL_SOCKET_IFNAME": "lo",
        "NCCL_IB_DISABLE": "1",
        "CUDA_DEVICE_MAX_CONNECTIONS": "32",
    }
