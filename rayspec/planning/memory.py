"""Bytes of a model, from its Hugging Face configuration: weights, KV cache, and the rest of a GPU.

Exact for decoder-only transformers with gated MLPs (Llama, Mistral, Qwen, Gemma and their mixtures
of experts) but for biases and other vectors; whatever else a model has is not counted. Pure
arithmetic: nothing is loaded, and no GPU is asked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

from rayspec.errors import ConfigError

__all__ = ["GIB", "Budget", "ModelShape", "Numbers", "budget"]

GIB = 2**30
_CUDA_CONTEXT = int(0.7 * GIB)  # context, cuBLAS and NCCL of one process
_BYTES = {"bfloat16": 2.0, "float16": 2.0, "half": 2.0, "float32": 4.0, "float": 4.0, "fp8": 1.0}


@dataclass(frozen=True, slots=True)
class Numbers:
    """Bytes of a value: in the layers' weights, everywhere else, and in the KV cache."""

    weight: float = 2.0
    other: float = 2.0
    kv: float = 2.0

    @classmethod
    def of(cls, config: Mapping[str, Any], dtype: str = "auto", kv: str = "auto") -> Numbers:
        """Return what a model of `config` is loaded as: its own type and quantization, or `dtype`.

        `dtype="fp8"` quantizes the layers' weights and leaves the rest in 16 bits, as vLLM does.
        """
        own = str(config.get("dtype") or config.get("torch_dtype") or "bfloat16")
        other = _width(own if dtype in ("auto", "fp8") else dtype)
        weight = 1.0 if dtype == "fp8" else other
        quantized = config.get("quantization_config")
        if quantized and dtype == "auto":
            weight = _quantized_width(quantized, other)
        return cls(weight, other, other if kv == "auto" else _width(kv))


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The sizes of a decoder-only transformer that memory and speed follow from.

    `experts` is 0 without a mixture of them. `latent` are the values that a token keeps in a cache
    layer with latent attention (MLA), else 0; weights of such attention are counted roughly.
    """

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool = False
    experts: int = 0
    active_experts: int = 0
    expert_intermediate: int = 0
    shared_intermediate: int = 0
    dense_layers: int = 0
    latent: int = 0

    @classmethod
    def read(cls, folder: Path) -> tuple[ModelShape, Mapping[str, Any]]:
        """Return the shape and the configuration of a model folder or of a `config.json`."""
        file = folder / "config.json" if folder.is_dir() else folder
        try:
            config = json.loads(file.read_text(encoding="utf-8"))
            text = {**config, **config.get("text_config", {})}
            return cls.of(text), text
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise ConfigError("model", str(file), f"cannot be read: {error}") from None
        except KeyError as error:
            raise ConfigError(
                "model", str(file), f"has no {error}; give its number of parameters instead"
            ) from None

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> ModelShape:
        """Return the shape that a Hugging Face configuration describes; KeyError if it does not."""
        heads, hidden = config["num_attention_heads"], config["hidden_size"]
        expert = config.get("moe_intermediate_size") or config["intermediate_size"]
        experts = (
            config.get("n_routed_experts")
            or config.get("num_local_experts")
            or config.get("num_experts")
            or 0
        )
        shared = config.get("shared_expert_intermediate_size") or (
            (config.get("n_shared_experts") or 0) * expert
        )
        latent = config.get("kv_lora_rank") or 0
        return cls(
            hidden=hidden,
            intermediate=config["intermediate_size"],
            layers=config["num_hidden_layers"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or hidden // heads,
            vocabulary=config["vocab_size"],
            tied=bool(config.get("tie_word_embeddings", False)),
            experts=experts,
            active_experts=(config.get("num_experts_per_tok") or 0) if experts else 0,
            expert_intermediate=expert if experts else 0,
            shared_intermediate=shared if experts else 0,
            dense_layers=(config.get("first_k_dense_replace") or 0) if experts else 0,
            latent=latent + (config.get("qk_rope_head_dim") or 0) if latent else 0,
        )

    @property
    def embedding(self) -> int:
        """Weights of the input and the output embeddings, tied ones once."""
        return (1 if self.tied else 2) * self.vocabulary * self.hidden

    @property
    def layer_weights(self) -> int:
        """Weights of all layers."""
        return self.layers_with(self.experts)

    @property
    def parameters(self) -> int:
        """All weights."""
        return self.layer_weights + self.embedding

    @property
    def active_parameters(self) -> int:
        """Weights that one token meets, the output embedding included."""
        return self.layers_with(self.active_experts) + self.vocabulary * self.hidden

    def layers_with(self, experts: int) -> int:
        """Return the weights of all layers with so many of the experts of each."""
        attention = 2 * self.hidden * self.head_dim * (self.heads + self.kv_heads)
        dense = attention + 3 * self.hidden * self.intermediate
        if not self.experts:
            return self.layers * dense
        per_expert = 3 * self.hidden * self.expert_intermediate
        shared = 3 * self.hidden * self.shared_intermediate + self.hidden * self.experts
        mixture = attention + experts * per_expert + shared
        return self.dense_layers * dense + (self.layers - self.dense_layers) * mixture

    def weight_bytes(self, numbers: Numbers, tensor_parallel: int = 1) -> int:
        """Return the weight bytes of one GPU of `tensor_parallel`."""
        whole = self.layer_weights * numbers.weight + self.embedding * numbers.other
        return ceil(whole / tensor_parallel)

    def kv_bytes_per_token(self, numbers: Numbers, tensor_parallel: int = 1) -> int:
        """Return the KV cache bytes of one token on one GPU.

        A head is not cut: beyond one head a GPU, heads are copied, and a latent cache always is.
        """
        if self.latent:
            return ceil(self.layers * self.latent * numbers.kv)
        heads = ceil(self.kv_heads / tensor_parallel)
        return ceil(2 * self.layers * heads * self.head_dim * numbers.kv)


@dataclass(frozen=True, slots=True)
class Budget:
    """What fills one GPU, in bytes; `kv` is what is left for the KV cache, negative if too little.

    `needed` is the least KV cache that serves one sequence of the greatest length.
    """

    memory: int
    reserved: int
    weights: int
    activations: int
    graphs: int
    kv: int
    needed: int
    kv_bytes_per_token: int

    @property
    def kv_tokens(self) -> int:
        """Tokens that the KV cache holds."""
        return max(self.kv, 0) // self.kv_bytes_per_token

    @property
    def missing(self) -> int:
        """Bytes by which it does not fit; 0 if it does."""
        return max(self.needed - self.kv, 0)


def budget(
    shape: ModelShape,
    numbers: Numbers,
    memory: int,
    *,
    tensor_parallel: int = 1,
    max_model_len: int = 8192,
    chunk_tokens: int = 2048,
    max_num_seqs: int = 256,
    k: int = 0,
    utilization: float = 0.9,
    graph_bytes: int = GIB,
) -> Budget:
    """Return how an engine fills a GPU of `memory` bytes that it uses to `utilization`.

    Estimated, on the safe side: activations are four hidden and two intermediate vectors of a
    chunk, and float32 logits with their sorted copy for every verified token; CUDA graphs take
    `graph_bytes`.
    """
    wide = 4 * shape.hidden + 2 * max(
        shape.intermediate, shape.active_experts * shape.expert_intermediate
    ) // max(tensor_parallel, 1)
    logits = 2 * 4 * max_num_seqs * (k + 1) * shape.vocabulary
    activations = int(chunk_tokens * wide * numbers.other) + logits
    reserved = int(memory * (1 - utilization)) + _CUDA_CONTEXT
    weights = shape.weight_bytes(numbers, tensor_parallel)
    per_token = shape.kv_bytes_per_token(numbers, tensor_parallel)
    left = memory - reserved - weights - activations - graph_bytes
    return Budget(
        memory,
        reserved,
        weights,
        activations,
        graph_bytes,
        left,
        max_model_len * per_token,
        per_token,
    )


def _width(dtype: str) -> float:
    name = dtype.removeprefix("torch.")
    if name.startswith("fp8"):
        return 1.0
    if name not in _BYTES:
        raise ConfigError("dtype", dtype, f"is none of {', '.join(sorted(_BYTES))}")
    return _BYTES[name]


def _quantized_width(quantized: Mapping[str, Any], other: float) -> float:
    """Return the bytes of a quantized weight, with the scales of its groups."""
    method = str(quantized.get("quant_method", "")).lower()
    bits = quantized.get("bits") or quantized.get("w_bit")
    for group in (quantized.get("config_groups") or {}).values():
        bits = bits or (group.get("weights") or {}).get("num_bits")
    if bits:
        group_size = quantized.get("group_size") or 128
        return float(bits) / 8 + (other / group_size if bits < 8 and group_size > 0 else 0.0)
    if "fp8" in method:
        return 1.0
    if method in ("mxfp4", "awq", "gptq", "bitsandbytes"):
        return 0.5 + other / 64
    return other
