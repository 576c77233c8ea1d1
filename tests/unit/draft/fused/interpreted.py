"""Runs the kernels in Triton's interpreter, where TRITON_INTERPRET=1 was set before the start.

    TRITON_INTERPRET=1 python tests/unit/draft/fused/interpreted.py

Prints one JSON object: for every case the largest difference of the logits to transformers', as a
share of the largest logit.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
import triton.language as tl
import triton.runtime.interpreter as interpreter
from transformers import LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

from rayspec.draft.fused import FusedLlamaModel
from rayspec.draft.fused.tiles import Tile
from tests.unit.draft.fused.sequences import Sequences, reference, tensors

VOCAB = 100
SIZES = {
    "hidden_size": 96,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "vocab_size": VOCAB,
    "max_position_embeddings": 256,
    "initializer_range": 0.1,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


@dataclass(frozen=True)
class Case:
    """A model, and the lengths of the sequences that it is asked about."""

    config: Any
    lengths: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    token_ids: tuple[int, ...] | None = None
    quantization: Literal["none", "fp8"] = "none"
    # A cut of every matrix, for what the rule would not choose for sizes like these.
    tile: Tile | None = None
    # The cache's dimensions from far to near in memory; keys and values lie beside each other.
    layout: Literal["BHN", "BNH"] | None = None


CASES = {
    # Lengths on both sides of block and chunk borders; with 3 rows one of 4 goes unused.
    "llama": Case(LlamaConfig(**SIZES, tie_word_embeddings=True), (70, 17, 129)),
    "one row, long": Case(LlamaConfig(**SIZES, rope_parameters=LLAMA3), (200,)),
    "split sums": Case(LlamaConfig(**SIZES), (66,), tile=Tile(bn=16, bk=16, split=2, stages=2)),
    "split sums, many rows": Case(
        LlamaConfig(**SIZES), (9, 65, 33), tile=Tile(bn=16, bk=16, split=3, stages=2)
    ),
    "mistral": Case(MistralConfig(**SIZES, sliding_window=None), (5, 64)),
    "qwen2": Case(Qwen2Config(**{**SIZES, "num_key_value_heads": 4}), (33, 70)),
    "qwen3": Case(Qwen3Config(**{**SIZES, "head_dim": 128}), (31, 64, 66)),
    "bfloat16": Case(LlamaConfig(**SIZES), (70, 30), dtype=torch.bfloat16),
    "trimmed head": Case(LlamaConfig(**SIZES), (12,), token_ids=(7, 3, 99, 50)),
    "shared cache, tokens first": Case(LlamaConfig(**SIZES), (70, 17, 129), layout="BNH"),
    "shared cache, heads first": Case(LlamaConfig(**SIZES), (66,), layout="BHN"),
    "fp8": Case(LlamaConfig(**SIZES), (40, 12, 65), quantization="fp8"),
}


def dequantize(twin: Any, model: FusedLlamaModel) -> None:
    """Give the reference the weights that are left after quantization."""
    rows = {"q": 256, "k": 128, "v": 128}
    for layer, ours in zip(twin.model.layers, model.weights.layers, strict=True):
        parts = ours.qkv.dense(model.dtype).split(list(rows.values()))
        for name, part in zip(rows, parts, strict=True):
            getattr(layer.self_attn, f"{name}_proj").weight.data.copy_(part)
        layer.self_attn.o_proj.weight.data.copy_(ours.out.dense(model.dtype))
        gate_up = ours.gate_up.dense(model.dtype)
        layer.mlp.gate_proj.weight.data.copy_(gate_up[0::2])
        layer.mlp.up_proj.weight.data.copy_(gate_up[1::2])
        layer.mlp.down_proj.weight.data.copy_(ours.down.dense(model.dtype))
    twin.lm_head.weight.data.copy_(model.weights.head.dense(model.dtype))


def share(model: FusedLlamaModel, layout: str) -> None:
    """Replace the cache by one laid out as vLLM's: [blocks, heads, block_size, keys + values]."""
    cache = []
    for keys, _ in model.cache:
        blocks, heads, size, wide = keys.shape
        order = (blocks, heads, size) if layout == "BHN" else (blocks, size, heads)
        both = torch.zeros(*order, 2 * wide, dtype=keys.dtype)
        pages = both if layout == "BHN" else both.transpose(1, 2)
        cache.append((pages[..., :wide], pages[..., wide:]))
    model.bind(cache, model.block_size, model.max_blocks)


def run(case: Case) -> Iterator[float]:
    """Yield the error of several decode steps after prefills in chunks."""
    twin = reference(case.config, case.dtype, "cpu")
    model = FusedLlamaModel(
        case.config,
        tensors(twin).__getitem__,
        device="cpu",
        dtype=case.dtype,
        token_ids=None if case.token_ids is None else torch.tensor(case.token_ids),
        quantization=case.quantization,
        block_size=16,
    )
    if case.tile is not None:
        tile = case.tile
        model.tile = lambda role, *_: (  # type: ignore[method-assign]
            tile if role in ("qkv", "out", "down") else Tile(tile.bn, tile.bk)
        )
    draw = torch.Generator().manual_seed(2)
    tokens = [torch.randint(0, VOCAB, (n,), generator=draw).tolist() for n in case.lengths]
    batch = Sequences(model, tokens, max_blocks=16)
    if case.layout is not None:
        share(model, case.layout)
    rows = 1 << (len(tokens) - 1).bit_length()
    narrow, wide = model.plan(rows, 1), model.plan(rows, 2)

    if case.quantization == "fp8":
        dequantize(twin, model)

    def error(logits: torch.Tensor) -> float:
        expected = batch.expected(twin)
        return float((logits - expected).abs().max() / expected.abs().max())

    for row, sequence in enumerate(tokens):
        batch.prefill(row, 40, len(sequence) - 1)
    batch.decode(narrow)
    # A rejected draft: its position is written again with another token, and one more after it.
    for sequence in batch.tokens:
        sequence[-1] = (sequence[-1] + 1) % VOCAB
        sequence.append(5)
    yield error(batch.decode(wide))
    for sequence in batch.tokens:
        sequence.append(6)
    yield error(batch.decode(narrow))


def multiply_bfloat16() -> None:
    """Close a gap of the interpreter, which multiplies the bit patterns of bfloat16 in a dot."""
    builder = interpreter.InterpreterBuilder
    dot = builder.create_dot

    def widened(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        if a.dtype == tl.bfloat16:
            a, b = (self.cast_impl(side, tl.float32) for side in (a, b))
        return dot(self, a, b, *rest)

    builder.create_dot = widened


def main() -> None:
    multiply_bfloat16()
    print(json.dumps({name: list(run(case)) for name, case in CASES.items()}))


if __name__ == "__main__":
    main()
