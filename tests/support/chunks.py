"""What a draft model prefills, put together from lists."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch

from rayspec.draft.vllm_model.base import Chunks

__all__ = ["chunks_of"]


def chunks_of(
    device: torch.device, parts: Sequence[tuple[Sequence[int], int, torch.Tensor]]
) -> Chunks:
    """Return chunks on a device; a part is tokens, the first one's position, and the block row."""
    counts = [len(tokens) for tokens, _, _ in parts]
    spans = tuple((start, start + len(tokens)) for tokens, start, _ in parts)

    def made(values: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        return torch.tensor(values, dtype=dtype, device=device)

    return Chunks(
        spans=spans,
        ids=made([token for tokens, _, _ in parts for token in tokens], torch.int32),
        positions=made([at for span in spans for at in range(*span)], torch.int64),
        owner=made([i for i, count in enumerate(counts) for _ in range(count)], torch.int64),
        starts=made([0, *itertools.accumulate(counts)], torch.int32),
        seq_lens=made([end for _, end in spans], torch.int32),
        block_table=torch.stack([table.to(device, torch.int32) for _, _, table in parts]),
    )
