"""What attention layers are told about a batch, by their backends' own builders.

Read at vLLM 0.32.0. A builder that `supports_draft_decode_metadata_update` makes metadata which
only points at persistent device tensors, and refreshes the rest with kernels: that is what vLLM
captures for its own draft models, and what we capture.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Any

import torch
from vllm.config import set_current_vllm_config
from vllm.v1.attention.backend import CommonAttentionMetadata
from vllm.v1.kv_cache_interface import FullAttentionSpec

from rayspec.draft.vllm_model.cache import LayerCaches
from rayspec.errors import ConfigError

__all__ = ["Attention", "Batch"]


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of queries: [rows + 1] int32 offsets on both sides, lengths, blocks, slots.

    `max_query` and `max_seq` bound what the tensors may say whenever the metadata is used.
    """

    starts: torch.Tensor  # [rows + 1] int32
    starts_cpu: torch.Tensor  # [rows + 1] int32
    seq_lens: torch.Tensor  # [rows] int32
    block_table: torch.Tensor  # [rows, max_blocks] int32
    slot_mapping: torch.Tensor  # [tokens] int64
    max_query: int
    max_seq: int


class Attention:
    """The builders of a model: one for each sort of layer, over one block table."""

    def __init__(self, config: Any, caches: LayerCaches, device: torch.device) -> None:
        self._names = caches.names
        sorts: dict[Any, list[str]] = defaultdict(list)
        for name in caches.names:
            layer, spec = caches.layer(name), caches.layer_spec(name)
            if isinstance(spec, FullAttentionSpec):
                # Layers that share blocks may differ in their windows; a builder's may not.
                spec = replace(spec, sliding_window=layer.sliding_window)
            sorts[layer.get_attn_backend(), spec, layer.num_heads].append(name)
        with set_current_vllm_config(config):
            self._builders = [
                (backend.get_builder_cls()(spec, names, config, device), names)
                for (backend, spec, _), names in sorts.items()
            ]
        if device.type == "cuda":
            for (backend, _, _), (builder, _) in zip(sorts, self._builders, strict=True):
                if not builder.supports_draft_decode_metadata_update:
                    raise ConfigError(
                        "attention",
                        backend.get_name(),
                        "plans on the host at every step, which a CUDA graph cannot; "
                        "take FLASH_ATTN or TRITON_ATTN",
                    )

    @property
    def refreshable(self) -> bool:
        """Whether metadata stays valid while the batch's tensors change."""
        return all(builder.supports_draft_decode_metadata_update for builder, _ in self._builders)

    def build(self, batch: Batch, *, once: bool) -> dict[str, Any]:
        """Return the metadata of each layer by its name; `once` spares preparation for replays."""
        common = CommonAttentionMetadata(
            query_start_loc=batch.starts,
            query_start_loc_cpu=batch.starts_cpu,
            seq_lens=batch.seq_lens,
            num_reqs=len(batch.seq_lens),
            num_actual_tokens=len(batch.slot_mapping),
            max_query_len=batch.max_query,
            max_seq_len=batch.max_seq,
            block_table_tensor=batch.block_table,
            slot_mapping=batch.slot_mapping,
        )
        metadata = {}
        for builder, names in self._builders:
            metadata.update(dict.fromkeys(names, builder.build(0, common, fast_build=once)))
        return metadata

    def refresh(self, metadata: dict[str, Any]) -> None:
        """Recompute with kernels what depends on the tensors; can be captured."""
        for builder, names in self._builders:
            builder.update_draft_decode_metadata(metadata[names[0]])

    def slots(self, slot_mapping: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return where each layer writes the new tokens."""
        return dict.fromkeys(self._names, slot_mapping)
