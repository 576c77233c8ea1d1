"""Shapes of Llama models: the ones that can be grown into, and what they weigh."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Dims:
    """The dimensions of a Llama model without its vocabulary."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    tied: bool = False  # one matrix is both embedding and head

    def __post_init__(self) -> None:
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} query heads cannot share {self.kv_heads} KV heads")

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Dims:
        """Read the dimensions of a `config.json`; ValueError for what growth cannot carry over."""
        for name in ("attention_bias", "mlp_bias"):
            if config.get(name):
                raise ValueError(f"a model with {name} cannot be grown")
        heads = config["num_attention_heads"]
        return cls(
            hidden=config["hidden_size"],
            layers=config["num_hidden_layers"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or config["hidden_size"] // heads,
            intermediate=config["intermediate_size"],
            tied=bool(config.get("tie_word_embeddings")),
        )

    @property
    def group(self) -> int:
        """How many query heads share one KV head."""
        return self.heads // self.kv_heads

    def parameters(self, vocab: int) -> int:
        """Return how many weights the model has."""
        attention = 2 * self.hidden * self.head_dim * (self.heads + self.kv_heads)
        layer = attention + 3 * self.hidden * self.intermediate + 2 * self.hidden
        return self.layers * layer + (1 if self.tied else 2) * vocab * self.hidden + self.hidden

    def step_bytes(self, vocab: int, width: int = 2) -> int:
        """Return the bytes that one decode step reads, at `width` bytes a weight.

        All weights, except that of an embedding which is not the head only single rows are read.
        """
        unread = 0 if self.tied else vocab * self.hidden
        return width * (self.parameters(vocab) - unread)


@dataclass(frozen=True, slots=True)
class Shape:
    """A shape to grow into, and which layers of the small model run side by side in it.

    Side by side is a different function: the pair (i, i+1) computes `x + a(x) + b(x)` instead of
    `x + a(x) + b(x + a(x))`. Layers in no pair follow each other as in the small model.
    """

    dims: Dims
    about: str
    pairs: tuple[int, ...] = ()  # the first layer of each pair

    def plan(self, layers: int) -> tuple[tuple[int, ...], ...]:
        """Return, for each layer of the shape, which of `layers` small layers it computes."""
        merged = [
            (i, i + 1) if i in self.pairs else (i,)
            for i in range(layers)
            if i - 1 not in self.pairs
        ]
        if len(merged) > self.dims.layers:
            raise ValueError(f"{len(merged)} layers do not fit into {self.dims.layers}")
        return (*merged, *(() for _ in range(self.dims.layers - len(merged))))


SHAPES: dict[str, Shape] = {
    "70b": Shape(Dims(8192, 80, 64, 8, 128, 28672), "Llama-3.1-70B; exact"),
    "32b": Shape(Dims(5120, 64, 40, 8, 128, 27648), "Qwen2.5-32B without its biases; exact"),
    "8b": Shape(Dims(4096, 32, 32, 8, 128, 14336), "Llama-3.1-8B; exact"),
    "0.5b": Shape(Dims(1152, 32, 18, 6, 64, 3072, True), "twice SmolLM2, for a CPU; exact"),
}
