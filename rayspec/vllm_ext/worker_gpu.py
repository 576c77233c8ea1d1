"""The CUDA worker."""

from __future__ import annotations

import os

from vllm.v1.worker.gpu_worker import Worker as GPUWorker

from rayspec.link.nccl import leave_deadlines_to_us
from rayspec.vllm_ext.worker import RayspecWorker

__all__ = ["Worker"]


class Worker(RayspecWorker, GPUWorker):
    """vLLM's GPU worker with our drafting hook."""

    def init_device(self) -> None:
        """Give the link's streams hardware queues of their own, then do what the worker does."""
        # Read when the CUDA context is made. With the default of 8 a stream of the link could
        # share a queue with the main one, and a reply then stands behind the kernel that waits.
        os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "32")
        super().init_device()
        # vLLM's own groups are built by now and keep their watchdog.
        leave_deadlines_to_us()
