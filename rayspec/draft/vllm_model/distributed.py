"""The distributed state that vLLM's layers ask for: one rank, this process. Read at vLLM 0.32.0."""

from __future__ import annotations

import torch
import torch.distributed as dist
from vllm.distributed.parallel_state import (
    ensure_model_parallel_initialized,
    init_distributed_environment,
    model_parallel_is_initialized,
)

from rayspec.errors import ModelError

__all__ = ["ensure_single_rank"]


def ensure_single_rank(device: torch.device) -> None:
    """Make this process a world of its own; idempotent; call under the current VllmConfig.

    A store inside the process carries the rendezvous, so no port is opened. The groups are never
    communicated over: gloo also beside CUDA, which spares a NCCL communicator. ModelError if
    the process belongs to a larger world already.
    """
    if model_parallel_is_initialized():
        return
    if dist.is_initialized() and dist.get_world_size() != 1:
        raise ModelError("a draft model cannot join a process that is a rank of something else")
    if not dist.is_initialized():
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    init_distributed_environment(world_size=1, rank=0, local_rank=device.index or 0, backend="gloo")
    ensure_model_parallel_initialized(1, 1)
