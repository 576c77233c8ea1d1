"""Model folders with a configuration and no weights, for engines that fill in dummy ones.

A shape costs what the model of that name costs. All of them speak one vocabulary, so that any
draft fits to any target.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

VOCAB_SIZE = 128256
MAX_POSITIONS = 8192


@dataclass(frozen=True)
class Shape:
    """Sizes of a Llama-like model; `hidden_size` = heads · head_dim where not said otherwise."""

    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    tied: bool = False

    def parameters(self, vocab_size: int = VOCAB_SIZE) -> int:
        """Return how many weights there are, tied ones once."""
        attention = 2 * self.hidden_size * self.head_dim * (self.heads + self.kv_heads)
        layer = attention + 3 * self.hidden_size * self.intermediate_size + 2 * self.hidden_size
        embeddings = (1 if self.tied else 2) * vocab_size * self.hidden_size
        return self.layers * layer + embeddings + self.hidden_size

    def step_bytes(self, vocab_size: int = VOCAB_SIZE, width: int = 2) -> int:
        """Return the weight bytes that one decode step reads, at `width` bytes a weight.

        Of an untied embedding table a step reads next to nothing.
        """
        unread = 0 if self.tied else vocab_size * self.hidden_size
        return (self.parameters(vocab_size) - unread) * width

    def kv_bytes_per_token(self, width: int = 2) -> int:
        """Return the KV cache that one token takes, at `width` bytes a value."""
        return 2 * self.layers * self.kv_heads * self.head_dim * width


SHAPES = {
    "8b": Shape(4096, 14336, 32, 32, 8, 128),  # Llama-3.1-8B
    "32b": Shape(5120, 27648, 64, 40, 8, 128),  # Qwen2.5-32B, without its biases
    "70b": Shape(8192, 28672, 80, 64, 8, 128),  # Llama-3.1-70B
    "1b": Shape(2048, 8192, 16, 32, 8, 64, tied=True),  # Llama-3.2-1B
    "smollm": Shape(576, 1536, 30, 9, 3, 64, tied=True),  # SmolLM2-135M
    "shallow": Shape(1024, 4096, 4, 16, 8, 64, tied=True),  # 0.2 B, most of it the vocabulary
    "tiny": Shape(128, 256, 2, 4, 4, 32, tied=True),  # for machines without a GPU
}


def config(shape: Shape, vocab_size: int = VOCAB_SIZE) -> dict[str, object]:
    """Return the `config.json` of a shape as a Llama."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
        "vocab_size": vocab_size,
        "max_position_embeddings": MAX_POSITIONS,
        "tie_word_embeddings": shape.tied,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "dtype": "bfloat16",
    }


# Draft and target compare their tokenizers, so that even a model without words has to have one.
_TOKENIZER = {
    "version": "1.0",
    "added_tokens": [],
    "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1}, "unk_token": "a"},
}


def read_shape(folder: Path) -> tuple[Shape, int]:
    """Return the shape and the vocabulary size of a folder with a Llama's `config.json`."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    shape = Shape(
        hidden_size=hidden,
        intermediate_size=config["intermediate_size"],
        layers=config["num_hidden_layers"],
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or hidden // heads,
        tied=bool(config.get("tie_word_embeddings")),
    )
    return shape, config["vocab_size"]


def write_shape(name: str, folder: Path, vocab_size: int = VOCAB_SIZE) -> Path:
    """Write the shape's configuration and a tokenizer into `folder`, which is made; return it."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "config.json": config(SHAPES[name], vocab_size),
        "tokenizer.json": _TOKENIZER,
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast"},
    }
    for file, content in files.items():
        (folder / file).write_text(json.dumps(content, indent=2) + "\n")
    return folder
