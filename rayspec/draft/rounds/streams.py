"""CUDA streams that nobody else gets.

torch hands its streams out of a pool of 32 for each priority, over and over: after some
attachments a receive that waits for an idle target would share one with the rounds.
"""

from __future__ import annotations

import ctypes
from typing import Any, Final

import torch

from rayspec.errors import RayspecError

__all__ = ["own_stream"]

_NON_BLOCKING: Final = 1


def own_stream(device: torch.device, priority: int = 0) -> Any:
    """Return a new stream, which lives as long as the process; -1 comes before 0.

    Work was done on `device` by the calling thread before, so that its context is the current one.
    """
    torch.cuda.set_device(device)
    handle = ctypes.c_void_p()
    driver = ctypes.CDLL("libcuda.so.1")
    failed = driver.cuStreamCreateWithPriority(ctypes.byref(handle), _NON_BLOCKING, priority)
    if failed or handle.value is None:
        raise RayspecError(f"no CUDA stream: error {failed}")
    return torch.cuda.ExternalStream(handle.value, device)
