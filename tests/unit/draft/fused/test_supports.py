from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GemmaConfig, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

from rayspec.draft.fused import FusedLlamaModel, FusedShape, supports
from rayspec.draft.fused.tiles import Role, choose_tile, padded_rows
from rayspec.draft.fused.weights import dummy_tensors
from rayspec.draft.vllm_model.base import DecodePlan, DraftModel
from rayspec.errors import ModelError

SMALL = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 2, "head_dim": 64}


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(**SMALL),
        MistralConfig(**SMALL, sliding_window=None),
        Qwen2Config(**SMALL),
        Qwen3Config(**SMALL),
    ],
    ids=lambda config: config.model_type,
)
def test_dense_llama_likes_are_supported(config: Any) -> None:
    assert supports(config) is None


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (GemmaConfig(), "gemma is not one of"),
        (MistralConfig(**SMALL, sliding_window=64), "windowed"),
        (Qwen2Config(**SMALL, use_sliding_window=True, max_window_layers=0), "windowed"),
        (LlamaConfig(**{**SMALL, "head_dim": 32}), "head_dim"),
        (LlamaConfig(**{**SMALL, "hidden_size": 120}), "multiples of 16"),
        (LlamaConfig(**SMALL, attention_bias=True), "biases"),
        (LlamaConfig(**SMALL, hidden_act="gelu"), "SiLU"),
        (
            LlamaConfig(**SMALL, rope_parameters={"rope_type": "dynamic", "factor": 2.0}),
            "rope is dynamic",
        ),
    ],
    ids=["family", "window", "window by layer", "heads", "sizes", "biases", "activation", "rope"],
)
def test_the_reason_is_named(config: Any, why: str) -> None:
    reason = supports(config)
    assert reason is not None
    assert why in reason
    with pytest.raises(ModelError, match=why):
        FusedLlamaModel(config, lambda name: torch.empty(0), device="cpu")


def test_a_folder_is_read(tmp_path: Path) -> None:
    assert "cannot be read" in (supports(tmp_path) or "")
    LlamaConfig(**SMALL).save_pretrained(tmp_path)
    assert supports(tmp_path) is None
    with pytest.raises(ModelError, match="holds no safetensors"):
        FusedLlamaModel.load(tmp_path, device="cpu")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "head_dim": 16}))
    with pytest.raises(ModelError, match="head_dim"):
        FusedLlamaModel.load(tmp_path, device="cpu", dummy=True)


def test_few_rows_stay_exact_and_many_fill_tensor_cores() -> None:
    assert [padded_rows(n) for n in (1, 2, 3, 16, 17, 64, 200)] == [1, 2, 16, 16, 32, 64, 64]


def test_small_matrices_are_cut_finer_and_only_where_sums_may_be_split() -> None:
    down = choose_tile("down", 2048, 8192, 16, 132)
    out = choose_tile("out", 576, 576, 16, 132)
    gate_up = choose_tile("gate_up", 3072, 576, 16, 132)
    head = choose_tile("head", 128256, 2048, 16, 132)
    assert down.split > 1
    assert out.split == gate_up.split == head.split == 1
    assert out.bn < gate_up.bn < head.bn


@pytest.mark.parametrize(("outputs", "inputs"), [(960, 576), (2048, 8192), (1024, 3072)])
@pytest.mark.parametrize("rows", [16, 32, 64])
def test_tiles_of_tensor_cores_fit(outputs: int, inputs: int, rows: int) -> None:
    roles: tuple[Role, ...] = ("qkv", "down")
    for role in roles:
        tile = choose_tile(role, outputs, inputs, rows, 132)
        assert inputs % (tile.bk * tile.split) == 0
        assert tile.stages * 2 * tile.bk * (tile.bn + rows) <= 227 * 1024


def test_it_is_a_draft_model() -> None:
    config = LlamaConfig(**SMALL, num_hidden_layers=1, vocab_size=32)
    shape, device = FusedShape.of(config), torch.device("cpu")
    weights = dict(dummy_tensors(shape, device, torch.float32))
    fused = FusedLlamaModel(config, weights.__getitem__, device="cpu", dtype=torch.float32)
    model: DraftModel = fused
    with pytest.raises(RuntimeError, match="before allocate"):
        model.plan(1, 1)
    model.allocate(4, 2)
    plan: DecodePlan = model.plan(3, 2)
    assert plan.input_ids.shape == (6,)
    assert plan.block_table.shape == (3, 2)
    # Keys and values of one layer with as many KV heads as heads, 4 bytes each.
    assert model.kv_bytes_per_token == 2 * shape.kv_heads * 64 * 4
    read = sum(tensor.numel() for name, tensor in weights.items() if "norm" not in name)
    assert model.weight_bytes == 4 * (read - 32 * 128)  # the embedding table is not read
    with pytest.raises(ValueError, match="width 3"):
        model.plan(1, 3)
    model.close()
    model.close()
