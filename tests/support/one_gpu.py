"""Two ends of a link on one GPU.

NCCL refuses two ranks on one device unless they seem to be on different hosts; then it goes through
sockets. Without a process scheduler on the device the two take turns, so nothing here is quick.
"""

from __future__ import annotations

__all__ = ["DEADLINE_S", "as_host"]

# The processes take turns of milliseconds; a miss in a test should mean that the draft is gone.
DEADLINE_S = 1.0


def as_host(name: str) -> dict[str, str]:
    """Return the environment of a process that is to be a host of its own for NCCL."""
    return {
        "NCCL_HOSTID": f"rayspec-{name}",
        "NCCL_SOCKET_IFNAME": "lo",
        "NCCL_IB_DISABLE": "1",
        "CUDA_DEVICE_MAX_CONNECTIONS": "32",
    }
