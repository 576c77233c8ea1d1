"""Verifies drafts whose logits are spread over tensor-parallel ranks, without gathering them.

Every rank reads its part of the vocabulary and says 32 bytes about each row: its largest logit, the
sum of its weights, the token that would win within it and the draft's logit. One all-gather later
each rank decides every row, with the same numbers and so alike. For greedy and plain temperature
sampling of certain drafts: a threshold (top-k, top-p, min-p) and drafts drawn from several tokens
need more than that of a row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from rayspec.ops import sharded_reference
from rayspec.ops.batch import Batch
from rayspec.ops.launch import Shard, launch_sharded

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["Gather", "Shard", "gather_over", "verify_sharded"]

Gather = Callable[[torch.Tensor], torch.Tensor]


def gather_over(group: ProcessGroup | None = None) -> Gather:
    """Return the all-gather of a process group: uint8 [N, 32] to [ranks, N, 32], in rank order."""

    def gather(mine: torch.Tensor) -> torch.Tensor:
        ranks = dist.get_world_size(group)
        everyone = mine.new_empty((ranks * mine.shape[0], mine.shape[1]))
        dist.all_gather_single(everyone, mine, group=group)
        return everyone.view(ranks, *mine.shape)

    return gather


def verify_sharded(batch: Batch, shard: Shard, gather: Gather) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what `rayspec.ops.verify.verify` does for the logits of all ranks together.

    `batch.logits` [N, shard.width] are this rank's columns of `shard.vocab`; everything else is the
    same on every rank, and `gather` is called by all of them. The same random numbers decide the
    same, but a tile, which is drawn as a whole, ends where a shard does: the tokens are those of
    `rayspec.ops.reference.verify(..., width=shard.width)`. Raises ValueError for what shards do not
    cover.
    """
    batch.check()
    if batch.truncates or batch.q_ids is not None:
        raise ValueError("shards verify neither top-k, top-p, min-p nor drafts with a distribution")
    if batch.logits.shape[1] != shard.width:
        raise ValueError(f"logits have {batch.logits.shape[1]} columns, their shard {shard.width}")
    if (shard.count - 1) * shard.width >= shard.vocab:
        raise ValueError(f"{shard.vocab} tokens leave a shard of {shard.width} columns empty")
    if batch.logits.device.type != "cuda":
        return sharded_reference.verify(batch, shard, gather)
    from rayspec.ops.loader import load

    return launch_sharded(load(batch.logits.device), batch, shard, gather)
