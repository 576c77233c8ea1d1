"""Verifies drafts against the target's logits in one read of them: a torch op with a fake.

On CUDA it runs the kernels in `kernels/`, elsewhere `rayspec.ops.reference`. Both keep to vLLM's
order: temperature, then min-p, top-k and top-p; ties at a threshold are all kept. Penalties, biases
and the like are applied to the logits before.
"""

from __future__ import annotations

from typing import Any, Final

import torch

from rayspec.ops import reference
from rayspec.ops.batch import MOST_NAMED, Batch
from rayspec.ops.launch import launch_verify

__all__ = ["MOST_NAMED", "Batch", "verify"]

_LIBRARY: Final = torch.library.Library("rayspec", "FRAGMENT")
_LIBRARY.define(f"verify({Batch.schema()}) -> (Tensor, Tensor)")


def verify(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Accept a prefix of every request's drafts and sample the token after it.

    A certain draft is accepted with probability p, and what replaces it is drawn from p without it.
    Of a draft drawn from q those are min(1, p / q) and max(p - q, 0). Temperature 0 takes the
    largest logit, the lowest of equal ones. NaN is never chosen where there is anything else.

    Return `sampled` int64 [B, k_max + 1], -1 after the `num_sampled` int32 [B] tokens. Raises
    ValueError for tensors that are not as `Batch` says.
    """
    batch.check()
    sampled, num_sampled = torch.ops.rayspec.verify(*batch.arguments)
    return sampled, num_sampled


def _cpu(*arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return reference.verify(Batch(*arguments))


def _cuda(*arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
    from rayspec.ops.loader import load

    batch = Batch(*arguments)
    device = batch.logits.device
    if device.index == torch.cuda.current_device():
        return launch_verify(load(device), batch)
    with torch.cuda.device(device):
        return launch_verify(load(device), batch)


def _fake(*arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
    batch = Batch(*arguments)
    requests = batch.slot_of.shape[0]
    sampled = batch.logits.new_empty((requests, batch.k_max + 1), dtype=torch.int64)
    return sampled, batch.logits.new_empty(requests, dtype=torch.int32)


_LIBRARY.impl("verify", _cpu, "CPU")
_LIBRARY.impl("verify", _cuda, "CUDA")
torch.library.register_fake("rayspec::verify", _fake, lib=_LIBRARY)
