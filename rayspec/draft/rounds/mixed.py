"""A draft model that decodes on the fused kernels or on vLLM's classes, whichever is faster."""

from __future__ import annotations

from functools import partial
from typing import Final

from rayspec.draft.fused import FusedLlamaModel
from rayspec.draft.rounds.quicker import Candidate, quickest
from rayspec.draft.vllm_model.base import Chunks, DecodePlan
from rayspec.draft.vllm_model.model import VllmDraftModel

__all__ = ["MixedDraftModel"]

# Of the steps that are timed: neither a fresh conversation's nor the longest.
_CONTEXT: Final = 512


class MixedDraftModel:
    """Both implementations over one KV cache, vLLM's; see `base.DraftModel`.

    Which of them is faster depends on the model, the batch and the GPU, and not in a way that a
    rule says: each plan is that of the one which won on this device. Prefill is vLLM's.
    """

    def __init__(self, fused: FusedLlamaModel, vllm: VllmDraftModel) -> None:
        self._fused, self._vllm = fused, vllm
        self.device = vllm.device
        self.vocab_size = vllm.vocab_size
        self.token_ids = vllm.token_ids
        self.block_size = vllm.block_size
        self.max_len = min(vllm.max_len, fused.max_len)
        self.kv_bytes_per_token = vllm.kv_bytes_per_token
        self.weight_bytes = fused.weight_bytes
        self.widest = vllm.widest

    def allocate(self, blocks: int, max_blocks: int) -> None:
        """Take the KV cache: `blocks` in all, at most `max_blocks` for one sequence."""
        self._vllm.allocate(blocks, max_blocks)
        cache = self._vllm.cache_views(self._fused.shape.head_dim)
        self._fused.bind(cache, self.block_size, max_blocks)

    def plan(self, rows: int, width: int) -> DecodePlan:
        """Return static buffers for decoding; call after `allocate`. Runs both once to choose."""
        if width > self._fused.widest:
            wide: DecodePlan = self._vllm.plan(rows, width)
            return wide
        return quickest(self.candidates(rows, width), min(_CONTEXT, self.max_len))

    def candidates(self, rows: int, width: int) -> dict[str, Candidate[DecodePlan]]:
        """Return what `plan` chooses from."""
        return {
            "fused kernels": partial(self._fused.plan, rows, width),
            "vLLM's classes": partial(self._vllm.plan, rows, width),
        }

    def prefill(self, chunks: Chunks) -> None:
        """Write the KV of chunks whose context is in the cache already, eagerly."""
        self._vllm.prefill(chunks)

    def close(self) -> None:
        """Release weights and cache; idempotent."""
        self._fused.close()
        self._vllm.close()
