"""The CPU worker. Never imported where there are GPUs: vLLM's module patches `torch.cuda`."""

from __future__ import annotations

from vllm.v1.worker.cpu_worker import CPUWorker

from rayspec.vllm_ext.worker import RayspecWorker

__all__ = ["Worker"]


class Worker(RayspecWorker, CPUWorker):
    """vLLM's CPU worker with our drafting hook."""
