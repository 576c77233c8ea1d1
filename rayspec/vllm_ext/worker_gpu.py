"""The CUDA worker."""

from __future__ import annotations

from vllm.v1.worker.gpu_worker import Worker as GPUWorker

from rayspec.vllm_ext.worker import RayspecWorker

__all__ = ["Worker"]


class Worker(RayspecWorker, GPUWorker):
    """vLLM's GPU worker with our drafting hook."""
