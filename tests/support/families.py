"""Random models of each supported family, small enough to compare logits with transformers'."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

WINDOW: Final = 24
# No multiple of 64: vLLM pads the head, and what it pads must not come out.
VOCAB: Final = 1000

_WINDOWED: Final = ["sliding_attention", "full_attention"]


def family_config(family: str, *, hidden: int = 128, layers: int = 4) -> Any:
    """Return the transformers configuration of a family; `hidden` in multiples of 128."""
    heads = hidden // 32
    common: dict[str, Any] = {
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads // 2,
        "vocab_size": VOCAB,
        "max_position_embeddings": 512,
        "initializer_range": 0.08,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    mixed = {"sliding_window": WINDOW, "layer_types": (_WINDOWED * layers)[:layers]}
    match family:
        case "llama":
            return LlamaConfig(**common, tie_word_embeddings=False)
        case "llama_tied":
            return LlamaConfig(**common, tie_word_embeddings=True, head_dim=32)
        case "mistral":
            return MistralConfig(**common, sliding_window=WINDOW, head_dim=32)
        case "qwen2":
            return Qwen2Config(**common, tie_word_embeddings=True)
        case "qwen3":
            return Qwen3Config(**common, head_dim=64)
        case "gemma":
            return GemmaConfig(**common, head_dim=64, hidden_activation="gelu_pytorch_tanh")
        case "gemma2":
            return Gemma2Config(
                **common,
                **mixed,
                head_dim=32,
                query_pre_attn_scalar=16,
                attn_logit_softcapping=2.0,  # low enough to bite
                final_logit_softcapping=4.0,
            )
        case "gemma3":
            return Gemma3TextConfig(**common, **mixed, head_dim=32, query_pre_attn_scalar=64)
    raise ValueError(family)


FAMILIES: Final = (
    "llama",
    "llama_tied",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma",
    "gemma2",
    "gemma3",
)


def build_family(family: str, folder: Path, **sizes: int) -> Path:
    """Write a random model of `family` into `folder`; return it."""
    torch.manual_seed(sum(map(ord, family)))
    model = AutoModelForCausalLM.from_config(family_config(family, **sizes))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                # Norms and biases begin as ones and zeros, which hides whether they are read.
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    return folder
