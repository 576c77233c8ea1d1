"""The GGUF conversion, on a model small enough to write here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from safetensors.torch import load_file
from tokenizers import Tokenizer

from rayspec.errors import ModelError
from rayspec.models.gguf import checksum, convert

HEADS, KV_HEADS, HIDDEN, LAYERS = 4, 2, 32, 2
TOKENS = ["<end>", "<start>", "a", "b", "1", "2", "Ġ", "ĠĠ", "Ġa", "12"]
MERGES = ["Ġ Ġ", "Ġ a", "1 2"]


def permuted(weights: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """Interleave the rotary halves as GGUF files do."""
    rows, columns = weights.shape
    halves = weights.reshape(heads, 2, rows // heads // 2, columns)
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows, columns))


def write_gguf(path: Path, pre: str = "smollm") -> dict[str, np.ndarray[Any, Any]]:
    """Write a random model, and return its weights as Hugging Face names and lays them out."""
    random = np.random.default_rng(0)

    def weights(*shape: int) -> np.ndarray[Any, Any]:
        return random.standard_normal(shape, dtype=np.float32)

    expected: dict[str, np.ndarray[Any, Any]] = {}
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(64)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, 3, *[1] * (len(TOKENS) - 2)])
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(0)
    writer.add_pad_token_id(0)
    writer.add_unk_token_id(0)
    writer.add_chat_template("{{ messages }}")

    def add(name: str, hf_name: str, *shape: int, heads: int = 0) -> None:
        expected[hf_name] = weights(*shape)
        writer.add_tensor(name, permuted(expected[hf_name], heads) if heads else expected[hf_name])

    add("token_embd.weight", "model.embed_tokens.weight", len(TOKENS), HIDDEN)
    add("output_norm.weight", "model.norm.weight", HIDDEN)
    for i in range(LAYERS):
        ours, theirs = f"blk.{i}", f"model.layers.{i}"
        kv = KV_HEADS * HIDDEN // HEADS
        add(f"{ours}.attn_norm.weight", f"{theirs}.input_layernorm.weight", HIDDEN)
        for letter, rows, heads in (("q", HIDDEN, HEADS), ("k", kv, KV_HEADS), ("v", kv, 0)):
            name = f"{theirs}.self_attn.{letter}_proj.weight"
            add(f"{ours}.attn_{letter}.weight", name, rows, HIDDEN, heads=heads)
        add(f"{ours}.attn_output.weight", f"{theirs}.self_attn.o_proj.weight", HIDDEN, HIDDEN)
        add(f"{ours}.ffn_norm.weight", f"{theirs}.post_attention_layernorm.weight", HIDDEN)
        add(f"{ours}.ffn_gate.weight", f"{theirs}.mlp.gate_proj.weight", 64, HIDDEN)
        add(f"{ours}.ffn_up.weight", f"{theirs}.mlp.up_proj.weight", 64, HIDDEN)
        add(f"{ours}.ffn_down.weight", f"{theirs}.mlp.down_proj.weight", HIDDEN, 64)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return expected


def converted(tmp_path: Path) -> tuple[Path, str, dict[str, np.ndarray[Any, Any]]]:
    """Return the folder of a converted model, its checksum and the weights it should have."""
    expected = write_gguf(tmp_path / "model.gguf")
    folder = tmp_path / "hf"
    folder.mkdir()
    return folder, convert(tmp_path / "model.gguf", folder, lambda items, _: items), expected


def test_weights_keep_their_values_and_layout(tmp_path: Path) -> None:
    import torch

    folder, digest, expected = converted(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    assert tensors.keys() == expected.keys()
    for name, values in expected.items():
        assert torch.equal(tensors[name], torch.tensor(values).to(torch.bfloat16)), name
    assert digest == checksum(tensors)


def test_checksum_sees_every_change(tmp_path: Path) -> None:
    folder, digest, _ = converted(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"][3] += 1
    assert checksum(tensors) != digest
    del tensors["model.norm.weight"]
    assert checksum(tensors) != digest


def test_configuration_names_the_shape_and_where_to_stop(tmp_path: Path) -> None:
    folder, _, _ = converted(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    assert config["tie_word_embeddings"] is True
    assert (config["num_attention_heads"], config["num_key_value_heads"]) == (HEADS, KV_HEADS)
    assert (config["hidden_size"], config["head_dim"]) == (HIDDEN, HIDDEN // HEADS)
    assert config["rms_norm_eps"] == 1e-5
    generation = json.loads((folder / "generation_config.json").read_text())
    assert generation == {"bos_token_id": 1, "eos_token_id": 0, "pad_token_id": 0}
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    assert (tokenizer["eos_token"], tokenizer["model_max_length"]) == ("<end>", 64)


def test_tokenizer_splits_digits_before_anything_else(tmp_path: Path) -> None:
    folder, _, _ = converted(tmp_path)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    # Were digits not split first, "12" would merge and the last space would go to the number.
    assert tokenizer.encode("a  12<end>").tokens == ["a", "ĠĠ", "1", "2", "<end>"]
    assert tokenizer.decode(tokenizer.encode("a  12").ids) == "a  12"


def test_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    write_gguf(tmp_path / "model.gguf", pre="llama-bpe")
    with pytest.raises(ModelError, match=r"model\.gguf is not a Llama model with SmolLM"):
        convert(tmp_path / "model.gguf", tmp_path, lambda items, _: items)
