"""Which models the fused path can run, and their sizes. Read at transformers 5.19."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from transformers import AutoConfig

__all__ = ["FusedShape", "read_config", "supports"]

_FAMILIES: Final = frozenset({"llama", "mistral", "qwen2", "qwen3"})
# Scalings whose frequencies do not depend on the sequence.
_ROPES: Final = frozenset({"default", "linear", "llama3", "yarn"})


@dataclass(frozen=True, slots=True)
class FusedShape:
    """Sizes of a model: `heads` query heads share `kv_heads` KV heads of `head_dim`."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    eps: float
    qkv_bias: bool
    qk_norm: bool
    tied: bool

    @classmethod
    def of(cls, config: Any) -> FusedShape:
        """Return the sizes in a transformers configuration that `supports` accepts."""
        family = config.model_type
        return cls(
            layers=config.num_hidden_layers,
            hidden=config.hidden_size,
            intermediate=config.intermediate_size,
            heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads or config.num_attention_heads,
            head_dim=_head_dim(config),
            vocab=config.vocab_size,
            eps=config.rms_norm_eps,
            qkv_bias=family == "qwen2",
            qk_norm=family == "qwen3",
            tied=bool(config.tie_word_embeddings),
        )

    @property
    def group(self) -> int:
        """Query heads of one KV head."""
        return self.heads // self.kv_heads

    @property
    def qkv(self) -> int:
        """Outputs of the joint query, key and value projection."""
        return (self.heads + 2 * self.kv_heads) * self.head_dim

    @property
    def attended(self) -> int:
        """Inputs of the output projection."""
        return self.heads * self.head_dim


def read_config(source: Any) -> Any:
    """Return the transformers configuration of a model folder, or `source` when it is one."""
    if isinstance(source, str | Path):
        return AutoConfig.from_pretrained(source, local_files_only=True)
    return source


def supports(source: Any) -> str | None:
    """Return why a model folder (or configuration) cannot take the fused path; None when it can."""
    try:
        config = read_config(source)
    except (OSError, ValueError) as error:
        return f"its configuration cannot be read: {error}"
    if config.model_type not in _FAMILIES:
        return f"{config.model_type} is not one of {', '.join(sorted(_FAMILIES))}"
    rope = config.rope_parameters or {}
    kinds = set(getattr(config, "layer_types", None) or ())
    reasons = {
        "its activation is not SiLU": config.hidden_act != "silu",
        "its weights are quantized": getattr(config, "quantization_config", None) is not None,
        "its head_dim is neither 64 nor 128": _head_dim(config) not in (64, 128),
        "its sizes are no multiples of 16": bool(
            config.hidden_size % 16 or config.intermediate_size % 16
        ),
        "its attention is windowed": (
            getattr(config, "sliding_window", None) is not None
            if config.model_type == "mistral"
            else not kinds <= {"full_attention"}
        ),
        "its projections have biases": bool(
            getattr(config, "attention_bias", False) or getattr(config, "mlp_bias", False)
        ),
        f"its rope is {rope.get('rope_type')}": rope.get("rope_type", "default") not in _ROPES,
        "only a part of each head is rotated": rope.get("partial_rotary_factor", 1.0) != 1.0,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def _head_dim(config: Any) -> int:
    explicit = getattr(config, "head_dim", None)
    return int(explicit or config.hidden_size // config.num_attention_heads)
