"""vLLM's cache and weights as others see them. Read at vLLM 0.32.0."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

__all__ = ["layer_tensors", "split_cache"]


def split_cache(cache: torch.Tensor, head_dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the keys and values of a layer's cache, [blocks, kv_heads, block_size, head_dim].

    FlashAttention's pages are [blocks, kv_heads, block_size, 2 head_dim] in every layout; what
    differs is the order in memory, which the views keep.
    """
    if cache.ndim != 4 or cache.shape[-1] != 2 * head_dim or cache.stride(-1) != 1:
        raise ValueError(f"pages of {tuple(cache.shape)} do not hold heads of {head_dim}")
    return cache[..., :head_dim], cache[..., head_dim:]


def layer_tensors(
    module: Any, heads: int, kv_heads: int, head_dim: int, vocab: int
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield an unquantized Llama-like module's weights under their names in transformers."""
    rows = [heads * head_dim, kv_heads * head_dim, kv_heads * head_dim]
    for name, tensor in module.named_parameters():
        parts: tuple[torch.Tensor, ...] = (tensor.detach(),)
        names = [name]
        if ".qkv_proj." in name:
            names = [name.replace("qkv_proj", f"{side}_proj") for side in "qkv"]
            parts = parts[0].split(rows)
        elif ".gate_up_proj." in name:
            names = [name.replace("gate_up", side) for side in ("gate", "up")]
            parts = parts[0].chunk(2)
        elif name in ("model.embed_tokens.weight", "lm_head.weight"):
            parts = (parts[0][:vocab],)  # padded
        yield from zip(names, parts, strict=True)
