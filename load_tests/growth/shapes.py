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
    """A shape to grow into, and which small layers each of its layers computes.

    By default it computes all of them in their order, and then as many without effect as it has
    left: the small model's own function. Two in one layer run side by side and compute
    `x + a(x) + b(x)` instead of `x + a(x) + b(x + a(x))`; that, and leaving layers out, makes a
    worse model: a draft with an acceptance of its own.
    """

    dims: Dims
    about: str
    computes: tuple[tuple[int, ...], ...] = ()

    def plan(self, layers: int) -> tuple[tuple[int, ...], ...]:
        """Return, for each layer of the shape, which of `layers` small layers it computes."""
        computes = self.computes or tuple((i,) for i in range(layers))
        if len(computes) > self.dims.layers:
            raise ValueError(f"{len(computes)} layers do not fit into {self.dims.layers}")
        return computes + ((),) * (self.dims.layers - len(computes))


_PAIRS = ((0,), *((i, i + 1) for i in range(1, 29, 2)), (29,))

SHAPES: dict[str, Shape] = {
    "70b": Shape(Dims(8192, 80, 64, 8, 128, 28672), "Llama-3.1-70B; exact"),
    "32b": Shape(Dims(5120, 64, 40, 8, 128, 27648), "Qwen2.5-32B without its biases; exact"),
    "8b": Shape(Dims(4096, 32, 32, 8, 128, 14336), "Llama-3.1-8B; exact"),
    "1b-deep": Shape(Dims(1536, 30, 24, 8, 64, 6144, True), "1B with SmolLM2's 30 layers; exact"),
    "0.5b": Shape(Dims(1152, 32, 18, 6, 64, 3072, True), "twice SmolLM2, for a CPU; exact"),
    "smollm": Shape(Dims(576, 30, 9, 3, 64, 1536, True), "SmolLM2-135M itself"),
    "1b": Shape(
        Dims(2048, 16, 32, 8, 64, 8192, True),
        "Llama-3.2-1B; layers merged in pairs, agrees in 22 %: distil",
        _PAIRS,
    ),
    "shallow": Shape(
        Dims(1024, 4, 16, 8, 64, 4096, True),
        "4 layers, the other 26 left out: distil",
        ((0,), (1,), (28,), (29,)),
    ),
}
