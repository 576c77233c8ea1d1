"""Shapes of drafts: shallow and wide, because every layer costs time in each of the K steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from rayspec.errors import ConfigError

__all__ = ["PRESETS", "Preset", "default_preset"]

_HEAD = 64  # what rayspec's fused kernels take


@dataclass(frozen=True, slots=True)
class Preset:
    """The sizes of a Llama-like draft without those that its target decides."""

    hidden: int
    layers: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int = _HEAD

    def __post_init__(self) -> None:
        for name in ("hidden", "intermediate"):
            if (size := getattr(self, name)) < 16 or size % 16:
                raise ConfigError(name, size, "must be a multiple of 16")
        if self.layers < 1:
            raise ConfigError("layers", self.layers, "must be at least 1")
        if self.heads % self.kv_heads:
            raise ConfigError("heads", self.heads, f"cannot share {self.kv_heads} KV heads")

    def __str__(self) -> str:
        return (
            f"{self.layers} layers of {self.hidden}, MLP {self.intermediate}, "
            f"{self.heads} heads of {self.head_dim}, {self.kv_heads} for KV"
        )

    def resized(
        self,
        hidden: int | None = None,
        layers: int | None = None,
        intermediate: int | None = None,
    ) -> Preset:
        """Return the preset with other sizes; the heads follow the width."""
        width = hidden or self.hidden
        heads = self.heads if width == self.hidden else max(1, width // self.head_dim)
        shared = self.kv_heads if width == self.hidden else heads
        return Preset(
            width,
            layers or self.layers,
            intermediate or (self.intermediate if width == self.hidden else 4 * width),
            heads,
            shared,
            self.head_dim,
        )

    def config(self, target: Mapping[str, Any]) -> dict[str, Any]:
        """Return the configuration of a draft for the target of a `config.json`.

        Vocabulary, special tokens and the greatest length are the target's; embedding and head are
        one matrix.
        """
        text = {**target, **target.get("text_config", {})}
        rope = text.get("rope_parameters") or {}
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": self.hidden,
            "num_hidden_layers": self.layers,
            "intermediate_size": self.intermediate,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
            "tie_word_embeddings": True,
            "vocab_size": text["vocab_size"],
            "max_position_embeddings": text["max_position_embeddings"],
            "rms_norm_eps": 1e-5,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": float(rope.get("rope_theta") or text.get("rope_theta") or 10000.0),
            },
            **{
                name: text[name]
                for name in ("bos_token_id", "eos_token_id", "pad_token_id")
                if text.get(name) is not None
            },
        }


PRESETS: Final[Mapping[str, Preset]] = {
    "tiny": Preset(192, 5, 1024, 3, 3),
    "small": Preset(512, 3, 2048, 8, 4),
    "shallow": Preset(1024, 2, 4096, 16, 8),
    "wide": Preset(2048, 2, 8192, 32, 8),
}
"""With SmolLM2's vocabulary of 49 152: 13.1, 36, 83 and 222 M weights."""


def default_preset(target: Mapping[str, Any]) -> str:
    """Return the preset that suits a target by its width."""
    width = int({**target, **target.get("text_config", {})}["hidden_size"])
    if width < 1024:
        return "tiny"
    return "small" if width < 2048 else "shallow" if width < 6144 else "wide"
