"""Bytes of models: known sizes, the GPU's budget, and what cannot be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rayspec.errors import ConfigError
from rayspec.planning.memory import GIB, ModelShape, Numbers, budget

LLAMA_8B = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
}
QWEN3_30B = {
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "moe_intermediate_size": 768,
    "num_hidden_layers": 48,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "vocab_size": 151936,
    "num_experts": 128,
    "num_experts_per_tok": 8,
}
MIXTRAL = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 32000,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
}


@pytest.mark.parametrize(
    ("config", "billions", "active"),
    [(LLAMA_8B, 8.03, 7.50), (QWEN3_30B, 30.53, 3.04), (MIXTRAL, 46.70, 12.75)],
)
def test_known_models(config: dict[str, Any], billions: float, active: float) -> None:
    shape = ModelShape.of(config)
    assert shape.parameters / 1e9 == pytest.approx(billions, abs=0.01)
    assert shape.active_parameters / 1e9 == pytest.approx(active, abs=0.01)


def test_a_tied_embedding_counts_once() -> None:
    apart, tied = ModelShape.of(LLAMA_8B), ModelShape.of({**LLAMA_8B, "tie_word_embeddings": True})
    assert apart.parameters - tied.parameters == 128256 * 4096


@pytest.mark.parametrize(("parallel", "heads"), [(1, 8), (2, 4), (8, 1), (16, 1)])
def test_kv_heads_are_divided_and_then_copied(parallel: int, heads: int) -> None:
    shape = ModelShape.of(LLAMA_8B)
    assert shape.kv_bytes_per_token(Numbers(), parallel) == 2 * 32 * heads * 128 * 2


def test_a_latent_cache_is_not_divided() -> None:
    shape = ModelShape.of({**LLAMA_8B, "kv_lora_rank": 512, "qk_rope_head_dim": 64})
    assert shape.kv_bytes_per_token(Numbers(), 8) == 32 * (512 + 64) * 2


@pytest.mark.parametrize(
    ("config", "dtype", "kv", "expected"),
    [
        ({}, "auto", "auto", (2, 2, 2)),
        ({"torch_dtype": "float32"}, "auto", "auto", (4, 4, 4)),
        ({"dtype": "float32"}, "bfloat16", "auto", (2, 2, 2)),
        ({}, "fp8", "fp8", (1, 2, 1)),
        ({"quantization_config": {"quant_method": "fp8"}}, "auto", "auto", (1, 2, 2)),
        (
            {"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128}},
            "auto",
            "auto",
            (0.5 + 2 / 128, 2, 2),
        ),
    ],
)
def test_numbers(
    config: dict[str, Any], dtype: str, kv: str, expected: tuple[float, float, float]
) -> None:
    numbers = Numbers.of(config, dtype, kv)
    assert (numbers.weight, numbers.other, numbers.kv) == expected


def test_a_budget_adds_up_and_says_what_is_missing() -> None:
    shape = ModelShape.of(LLAMA_8B)
    fits = budget(shape, Numbers(), 80 * GIB, max_model_len=8192)
    parts = fits.reserved + fits.weights + fits.activations + fits.graphs + fits.kv
    assert parts == fits.memory
    assert fits.missing == 0
    assert fits.kv_tokens == fits.kv // 131072
    tight = budget(shape, Numbers(), 16 * GIB, max_model_len=8192)
    assert tight.missing == tight.needed - tight.kv > 0
    enough = budget(shape, Numbers(), 16 * GIB + tight.missing * 10 // 9 + 1, max_model_len=8192)
    assert enough.missing == 0


def test_tensor_parallelism_halves_weights() -> None:
    shape = ModelShape.of(LLAMA_8B)
    one, two = (budget(shape, Numbers(), 80 * GIB, tensor_parallel=n) for n in (1, 2))
    assert two.weights == pytest.approx(one.weights / 2, rel=1e-6)
    assert two.kv_tokens > 2 * one.kv_tokens


def test_read_takes_a_folder_or_a_file_and_looks_inside_of_multimodal_ones(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"text_config": LLAMA_8B}))
    for path in (tmp_path, tmp_path / "config.json"):
        shape, config = ModelShape.read(path)
        assert shape.layers == 32
        assert config["vocab_size"] == 128256


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"hidden_size": 5}'])
def test_what_cannot_be_read_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=r"config\.json"):
        ModelShape.read(tmp_path)
