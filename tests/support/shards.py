"""Sharded verification without processes: ranks that are there one after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from rayspec.ops.batch import Batch
from rayspec.ops.sharded import Gather, Shard

__all__ = ["on_every_rank", "part"]

Result = tuple[torch.Tensor, torch.Tensor]


def part(given: Batch, shard: Shard) -> Batch:
    """Return a rank's batch; beyond the vocabulary its logits are large, and count for nothing."""
    mine = given.logits.new_full((given.logits.shape[0], shard.width), 50.0)
    mine[:, : shard.columns] = given.logits[:, shard.first : shard.first + shard.columns]
    return replace(given, logits=mine)


def on_every_rank(
    given: Batch,
    count: int,
    width: int,
    one: Callable[[Batch, Shard, Gather], Result],
) -> list[Result]:
    """Return what each rank gets: a first pass summarizes, a second has all summaries."""
    summaries: list[torch.Tensor] = []

    class Enough(Exception):
        pass

    def note(mine: torch.Tensor) -> torch.Tensor:
        summaries.append(mine.clone())
        raise Enough

    shards = [Shard(index, count, width, given.logits.shape[1]) for index in range(count)]
    for shard in shards:
        with pytest.raises(Enough):
            one(part(given, shard), shard, note)
    return [one(part(given, shard), shard, lambda _: torch.stack(summaries)) for shard in shards]
