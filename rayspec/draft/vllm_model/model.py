"""A draft model on vLLM's model classes, kernels and KV layout, driven by ourselves.

Read at vLLM 0.32.0. There is no engine, scheduler, executor or worker: a loaded module, its
attention layers' caches, and metadata on static tensors.
"""

from __future__ import annotations

import gc
import itertools
from typing import Any

import torch
from vllm.forward_context import set_forward_context
from vllm.model_executor.models.utils import extract_layer_index

from rayspec.draft.vllm_model.attention import Attention, Batch
from rayspec.draft.vllm_model.base import WIDEST, Chunks
from rayspec.draft.vllm_model.cache import LayerCaches
from rayspec.draft.vllm_model.load import device_of, load
from rayspec.draft.vllm_model.plan import VllmDecodePlan
from rayspec.draft.vllm_model.shared import split_cache
from rayspec.draft.vllm_model.spec import VllmModelSpec
from rayspec.draft.vllm_model.trim import trimmed_head
from rayspec.draft.vocabulary import read_token_ids
from rayspec.errors import ConfigError

__all__ = ["VllmDraftModel"]


class VllmDraftModel:
    """A causal LM whose KV cache is a pool of blocks; see `base.DraftModel`.

    Construction loads the weights. `max_len` is the most tokens that a sequence may have, and
    `module` the vLLM model for those who read its weights. One thread drives a model, with the
    model's device as its current one.
    """

    def __init__(self, spec: VllmModelSpec) -> None:
        self.device = device_of(spec.device)
        self.module, self._config = load(spec)
        self.max_len: int = self._config.model_config.max_model_len
        self.vocab_size: int = self.module.logits_processor.org_vocab_size
        self._max_rows = spec.max_rows
        # Gemma 2 alone has no `lm_head`.
        self._head: Any = getattr(self.module, "lm_head", None) or self._embedding
        self.token_ids: torch.Tensor | None = None
        if spec.vocab_trim is not None:
            ids = read_token_ids(spec.vocab_trim, self.vocab_size)
            self._head = trimmed_head(self._head, ids, self._config)
            self.token_ids = ids.to(self.device)
            if hasattr(self.module, "lm_head"):
                self.module.lm_head = self._head  # lets the memory of an untied one go
        self._caches = LayerCaches(self._config)
        self.block_size = self._caches.block_size
        self.kv_bytes_per_token = self._caches.block_bytes // self.block_size
        self.weight_bytes = self._weight_bytes()
        self.widest = WIDEST
        self._max_blocks = 0
        # Builders own scratch memory, and prefill runs beside decoding on another stream.
        self._decode = Attention(self._config, self._caches, self.device)
        self._prefill = Attention(self._config, self._caches, self.device)

    def blocks_within(self, memory: int) -> int:
        """Return how many blocks fit into `memory` bytes; ConfigError if it is less than two."""
        blocks = memory // self._caches.block_bytes
        if blocks < 2:
            raise ConfigError(
                "kv memory", f"{memory} bytes", f"a block takes {self._caches.block_bytes} bytes"
            )
        return blocks

    def allocate(self, blocks: int, max_blocks: int) -> None:
        """Take the KV cache: `blocks` in all, at most `max_blocks` for one sequence."""
        self._caches.allocate(blocks, self.device)
        self._max_blocks = max_blocks

    def cache_views(self, head_dim: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return the keys and values of each layer in the model's order; after `allocate`."""
        names = sorted(self._caches.names, key=extract_layer_index)
        return [split_cache(self._caches.layer(name).kv_cache, head_dim) for name in names]

    @torch.no_grad()
    def plan(self, rows: int, width: int) -> VllmDecodePlan:
        """Return static buffers for decoding; call after `allocate`. ConfigError: too many rows."""
        if not self._max_blocks:
            raise RuntimeError("plan() was called before allocate()")
        if rows > self._max_rows:
            raise ConfigError("rows", rows, f"the model was loaded for {self._max_rows}")
        return VllmDecodePlan(
            rows=rows,
            width=width,
            max_blocks=self._max_blocks,
            block_size=self.block_size,
            attention=self._decode,
            forward=self._forward,
            head=self._logits,
            device=self.device,
        )

    @torch.no_grad()
    def prefill(self, chunks: Chunks) -> None:
        """Write the KV of chunks whose context is in the cache already, eagerly.

        On CUDA kernels are launched and nothing is copied.
        """
        size, positions = self.block_size, chunks.positions
        blocks = chunks.block_table[chunks.owner, positions // size]
        slots = blocks.long() * size + positions % size
        counts = [end - start for start, end in chunks.spans]
        batch = Batch(
            starts=chunks.starts,
            starts_cpu=torch.tensor([0, *itertools.accumulate(counts)], dtype=torch.int32),
            seq_lens=chunks.seq_lens,
            block_table=chunks.block_table,
            slot_mapping=slots,
            max_query=max(counts),
            max_seq=max(end for _, end in chunks.spans),
        )
        metadata = self._prefill.build(batch, once=True)
        self._forward(chunks.ids, positions, metadata, self._prefill.slots(slots))

    def close(self) -> None:
        """Release weights and cache; idempotent."""
        if self.module is None:
            return
        self._caches.release()
        self._config.compilation_config.static_forward_context.clear()
        self.module = self._head = self.token_ids = None
        self._decode = self._prefill = self._caches = None  # type: ignore[assignment]
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @property
    def _embedding(self) -> Any:
        return self.module.model.embed_tokens

    def _forward(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        metadata: dict[str, Any],
        slots: dict[str, torch.Tensor],
    ) -> torch.Tensor:
        with set_forward_context(metadata, self._config, num_tokens=len(ids), slot_mapping=slots):
            hidden: torch.Tensor = self.module(ids, positions)
        return hidden

    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.module.logits_processor(self._head, hidden)
        return logits if self.token_ids is None else logits[:, : len(self.token_ids)]

    def _weight_bytes(self) -> int:
        """Bytes of the weights that one decoding step reads: of embeddings only single rows.

        On a CPU this leaves out the matrices that vLLM has repacked for its kernels.
        """
        tensors = {
            tensor.data_ptr(): tensor.nbytes
            for module in (self.module, self._head)
            for tensor in module.parameters()
        }
        embedding = self._embedding.weight.data_ptr()
        if self._head.weight.data_ptr() != embedding:
            tensors.pop(embedding)
        return sum(tensors.values())
