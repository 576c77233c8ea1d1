"""A Llama-like draft whose decode steps run on the fused kernels."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import torch

from rayspec.draft.fused.launch import launch_options
from rayspec.draft.fused.measured import MEASURED
from rayspec.draft.fused.plan import FusedPlan
from rayspec.draft.fused.prefill import Cache, prefill_chunk
from rayspec.draft.fused.rope import rope_tables
from rayspec.draft.fused.shape import FusedShape, read_config, supports
from rayspec.draft.fused.tiles import Role, Tile, TileKey, choose_tile
from rayspec.draft.fused.weights import (
    Find,
    build_weights,
    dummy_tensors,
    folder_tensors,
    stream_tensors,
)
from rayspec.draft.vllm_model.base import Chunks
from rayspec.errors import ModelError

__all__ = ["FusedLlamaModel"]

logger = logging.getLogger(__name__)

# Of an interpreter or a device that does not say.
_PROCESSORS: Final = 4


class FusedLlamaModel:
    """A `DraftModel` with weights, paged KV cache and plans of its own; see `supports`.

    `config` is a transformers configuration and `find` looks up tensors by their transformers
    names. `dtype` None means bfloat16, and float32 on a CPU. `token_ids` [n] trims the head: logits
    then have n columns, and the attribute of the same name (int32, on the device) says which tokens
    they are. `quantization` fp8 holds the matrices in 8 bits with a scale per output. `pdl` None
    uses programmatic dependent launches where they exist; `tiles` overrides how matrices are cut.
    """

    def __init__(
        self,
        config: Any,
        find: Find,
        *,
        device: torch.device | str = "cuda",
        dtype: torch.dtype | None = None,
        token_ids: torch.Tensor | None = None,
        quantization: Literal["none", "fp8"] = "none",
        block_size: int = 32,
        pdl: bool | None = None,
        tiles: Mapping[TileKey, Tile] | None = None,
    ) -> None:
        reason = supports(config)
        if reason is not None:
            raise ModelError(f"the fused draft path cannot run this model: {reason}")
        self.device = torch.device(device)
        dtype = dtype or _default_dtype(self.device)
        self.dtype = dtype
        self.block_size = block_size
        self.shape = FusedShape.of(config)
        self.vocab_size = self.shape.vocab
        self.max_len: int = config.max_position_embeddings
        self.options = launch_options(self.device, pdl)
        self.processors = (
            torch.cuda.get_device_properties(self.device).multi_processor_count
            if self.device.type == "cuda"
            else _PROCESSORS
        )
        self.token_ids = (
            None
            if token_ids is None
            else token_ids.to(device=self.device, dtype=torch.int32).contiguous()
        )
        self.weights = build_weights(
            self.shape,
            find,
            device=self.device,
            dtype=dtype,
            token_ids=token_ids,
            fp8=quantization == "fp8",
        )
        self.weight_bytes = self.weights.step_bytes
        self.widest = 2
        sides = 2 * self.shape.layers * self.shape.kv_heads * self.shape.head_dim
        self.kv_bytes_per_token = sides * dtype.itemsize
        self.max_blocks = 0
        self.cache: Cache = ()
        self.cos = self.sin = torch.empty(0)
        self._config = config
        self._tiles = MEASURED | dict(tiles or {})
        logger.info("fused draft: %s, %.2f GB a step", self.shape, self.weight_bytes / 1e9)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        dummy: bool = False,
        tensors: Iterable[tuple[str, torch.Tensor]] | None = None,
        **settings: Any,
    ) -> FusedLlamaModel:
        """Return the model of a folder; its weights are random if `dummy`, or given as `tensors`.

        `settings` are the constructor's. ModelError when the folder cannot take the fused path.
        """
        reason = supports(folder)
        if reason is not None:
            raise ModelError(f"{folder} cannot take the fused draft path: {reason}")
        config = read_config(folder)
        if dummy:
            device = torch.device(settings.get("device", "cuda"))
            dtype = settings.get("dtype") or _default_dtype(device)
            tensors = dummy_tensors(FusedShape.of(config), device, dtype)
        find = folder_tensors(folder) if tensors is None else stream_tensors(tensors)
        return cls(config, find, **settings)

    def tile(self, role: Role, outputs: int, inputs: int, rows: int) -> Tile:
        """Return how a matrix is cut for so many (padded) rows."""
        chosen = self._tiles.get((role, outputs, inputs, rows))
        return chosen or choose_tile(role, outputs, inputs, rows, self.processors)

    def allocate(self, blocks: int, max_blocks: int) -> None:
        """Take the KV cache: `blocks` in all, at most `max_blocks` for one sequence."""
        shape = self.shape
        # Zeroed, because masked values still take part with weight 0, and 0 × NaN is NaN.
        cache = torch.zeros(
            (shape.layers, 2, blocks, shape.kv_heads, self.block_size, shape.head_dim),
            device=self.device,
            dtype=self.dtype,
        )
        self.bind([(keys, values) for keys, values in cache], self.block_size, max_blocks)

    def bind(self, cache: Cache, block_size: int, max_blocks: int) -> None:
        """Take a KV cache that something else may use too; its memory must hold no NaN."""
        self.cache, self.block_size, self.max_blocks = cache, block_size, max_blocks
        self.cos, self.sin = rope_tables(self._config, max_blocks * self.block_size, self.device)

    def plan(self, rows: int, width: int) -> FusedPlan:
        """Return static buffers for decoding; call after `allocate`."""
        if not self.max_blocks:
            raise RuntimeError("plan() was called before allocate()")
        return FusedPlan(self, rows, width)

    @torch.no_grad()
    def prefill(self, chunks: Chunks) -> None:
        """Write the KV of chunks whose context is in the cache already, one after the other.

        Nothing waits for the device.
        """
        done = 0
        for (start, end), blocks in zip(chunks.spans, chunks.block_table, strict=True):
            prefill_chunk(self, chunks.ids[done : done + end - start], start, blocks)
            done += end - start

    def close(self) -> None:
        """Release weights and cache; idempotent. Plans must not run any more."""
        empty = torch.empty(0)
        self.cache = ()
        self.cos = self.sin = empty
        if self.weights.layers:
            self.weights = type(self.weights)(
                empty, (), empty, type(self.weights.head)(empty, None)
            )


def _default_dtype(device: torch.device) -> torch.dtype:
    # Triton's interpreter multiplies bfloat16 wrongly.
    return torch.float32 if device.type == "cpu" else torch.bfloat16
