"""Tables of rotary embeddings, as transformers defines the frequencies. Read at 5.19."""

from __future__ import annotations

from typing import Any

import torch
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

__all__ = ["rope_tables"]


def rope_tables(
    config: Any, positions: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return cosines and sines [positions, head_dim / 2] float32, scaled for attention.

    The families of the fused path rotate alike; the class is only asked for its frequencies.
    """
    rope = LlamaRotaryEmbedding(config=config)
    frequencies = rope.inv_freq.to(device=device, dtype=torch.float32)
    angles = torch.arange(positions, device=device, dtype=torch.float32)[:, None] * frequencies
    return angles.cos() * rope.attention_scaling, angles.sin() * rope.attention_scaling
