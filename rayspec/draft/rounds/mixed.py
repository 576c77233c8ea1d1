"""A draft model that decodes few tokens on the fused kernels and more on vLLM's classes."""

from __future__ import annotations

from typing import Final

from rayspec.draft.fused import FusedLlamaModel
from rayspec.draft.vllm_model.base import Chunks, DecodePlan
from rayspec.draft.vllm_model.model import VllmDraftModel

__all__ = ["FUSED_TOKENS", "MixedDraftModel"]

# Measured on an H200 with 512 tokens of context: a step of one row takes the fused kernels 0.48,
# 0.78 and 0.66 of vLLM's time (0.13B, 1B, 4 layers).
FUSED_TOKENS: Final = 2


class MixedDraftModel:
    """Both implementations over one KV cache, vLLM's; see `base.DraftModel`.

    Plans of up to `most` tokens are fused; prefill is vLLM's.
    """

    def __init__(
        self, fused: FusedLlamaModel, vllm: VllmDraftModel, most: int = FUSED_TOKENS
    ) -> None:
        self._fused, self._vllm, self._most = fused, vllm, most
        self.device = vllm.device
        self.vocab_size = vllm.vocab_size
        self.token_ids = vllm.token_ids
        self.block_size = vllm.block_size
        self.max_len = min(vllm.max_len, fused.max_len)
        self.kv_bytes_per_token = vllm.kv_bytes_per_token
        self.weight_bytes = fused.weight_bytes

    def allocate(self, blocks: int, max_blocks: int) -> None:
        """Take the KV cache: `blocks` in all, at most `max_blocks` for one sequence."""
        self._vllm.allocate(blocks, max_blocks)
        cache = self._vllm.cache_views(self._fused.shape.head_dim)
        self._fused.bind(cache, self.block_size, max_blocks)

    def plan(self, rows: int, width: int) -> DecodePlan:
        """Return static buffers for decoding; call after `allocate`."""
        few = rows * width <= self._most
        return self._fused.plan(rows, width) if few else self._vllm.plan(rows, width)

    def prefill(self, chunks: Chunks) -> None:
        """Write the KV of chunks whose context is in the cache already, eagerly."""
        self._vllm.prefill(chunks)

    def close(self) -> None:
        """Release weights and cache; idempotent."""
        self._fused.close()
        self._vllm.close()
