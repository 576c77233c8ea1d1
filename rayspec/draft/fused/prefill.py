"""The forward over a chunk of one prompt, in plain torch: large matrices need no kernel of ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias

import torch
from torch.nn import functional

from rayspec.draft.fused.shape import FusedShape
from rayspec.draft.fused.weights import Layer, Matrix, Weights

__all__ = ["Cache", "PrefillState", "prefill_chunk"]

# Keys and values of every layer, [blocks, kv_heads, block_size, head_dim] each, in any order of
# memory in which heads are contiguous.
Cache: TypeAlias = Sequence[tuple[torch.Tensor, torch.Tensor]]


class PrefillState(Protocol):
    """What a prefill reads and writes of the model."""

    shape: FusedShape
    weights: Weights
    block_size: int
    cache: Cache
    cos: torch.Tensor  # [positions, head_dim / 2] float32
    sin: torch.Tensor


def prefill_chunk(
    state: PrefillState, tokens: torch.Tensor, start: int, block_table: torch.Tensor
) -> None:
    """Write the KV of `tokens` [n] at positions `start`…, whose context is in the cache already."""
    shape, cache = state.shape, state.cache
    size, device = state.block_size, tokens.device
    count = tokens.shape[0]
    end = start + count
    at = torch.arange(start, end, device=device)
    blocks = block_table[: -(-end // size)].to(torch.int64)
    where = blocks[at // size], at % size
    cos, sin = state.cos[start:end, None], state.sin[start:end, None]  # [n, 1, D / 2]
    seen = torch.arange(end, device=device) <= at[:, None] if start else None  # [n, end]
    x = state.weights.embedding[tokens.to(torch.int64)].to(torch.float32)  # [n, hidden]
    last = len(state.weights.layers) - 1
    for index, layer in enumerate(state.weights.layers):
        q, k, v = _qkv(shape, layer, x, cos, sin)
        keys, values = cache[index]
        keys[where[0], :, where[1]] = k
        values[where[0], :, where[1]] = v
        if index == last:
            return  # Nothing later reads the last layer's output.
        if start:
            k, v = (side[blocks].transpose(0, 1).flatten(1, 2)[:, :end] for side in (keys, values))
        else:
            k, v = k.transpose(0, 1), v.transpose(0, 1)
        # Shared heads are copied: not every attention kernel of torch takes a mask and shares.
        k, v = (side.repeat_interleave(shape.group, dim=0)[None] for side in (k, v))
        attended = functional.scaled_dot_product_attention(
            q.transpose(0, 1)[None], k, v, attn_mask=seen, is_causal=seen is None
        )[0]  # [heads, n, D]
        x += _linear(attended.transpose(0, 1).flatten(1), layer.out)
        y = _norm(x, layer.mlp_gain, shape.eps)
        gate, up = _linear(y, layer.gate_up).view(count, -1, 2).unbind(-1)
        x += _linear(functional.silu(gate) * up, layer.down)


def _qkv(
    shape: FusedShape, layer: Layer, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return rotated queries and keys, and values: [n, heads, head_dim] each."""
    y = _norm(x, layer.attention_gain, shape.eps)
    qkv = _linear(y, layer.qkv, layer.qkv_bias).view(x.shape[0], -1, shape.head_dim)
    q, k, v = qkv.split([shape.heads, shape.kv_heads, shape.kv_heads], dim=1)
    if layer.q_gain is not None and layer.k_gain is not None:
        q, k = _norm(q, layer.q_gain, shape.eps), _norm(k, layer.k_gain, shape.eps)
    return _rotate(q, cos, sin), _rotate(k, cos, sin), v


def _linear(x: torch.Tensor, matrix: Matrix, bias: torch.Tensor | None = None) -> torch.Tensor:
    return functional.linear(x, matrix.dense(x.dtype), bias)


def _norm(x: torch.Tensor, gain: torch.Tensor, eps: float) -> torch.Tensor:
    wide = x.to(torch.float32)
    normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return (normed * gain.to(torch.float32)).to(gain.dtype)


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    a, b = x.to(torch.float32).chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).to(x.dtype)
