"""A two-layer random Llama with a real tokenizer: wrong in every answer, and quick."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

_EAGLE3_NORMS = ("input_layernorm", "hidden_norm", "post_attention_layernorm")
# What makes a folder a tokenizer.
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def build_tiny(folder: Path, tokenizer: Path, *, vocab_size: int = 49152, seed: int = 0) -> Path:
    """Write the model into `folder` with the tokenizer of the model in `tokenizer`."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        vocab_size=vocab_size,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        # Wide enough that greedy decoding leaves single tokens and repeats longer patterns.
        initializer_range=0.2,
    )
    model = LlamaForCausalLM(config).to(torch.float32)
    model.save_pretrained(folder)
    for name in TOKENIZER_FILES:
        if (tokenizer / name).exists():
            shutil.copy(tokenizer / name, folder / name)
    return folder


def build_eagle3(folder: Path, target: Path, *, seed: int = 1) -> Path:
    """Write a random EAGLE-3 head for the Llama in `target` into `folder`.

    Names and shapes of its weights are those of published heads, as vLLM 0.32.0 loads them. It
    drafts from the first half of the vocabulary, which `d2t` maps to the target's.
    """
    torch.manual_seed(seed)
    config = json.loads((target / "config.json").read_text(encoding="utf-8"))
    hidden, inner, vocab = (config[k] for k in ("hidden_size", "intermediate_size", "vocab_size"))
    keys = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    aux_layers = [0, 1]
    config |= {
        "architectures": ["LlamaForCausalLMEagle3"],
        "num_hidden_layers": 1,
        "draft_vocab_size": vocab // 2,
        "eagle_aux_hidden_state_layer_ids": aux_layers,
        "num_aux_hidden_states": len(aux_layers),
        "tie_word_embeddings": False,
    }
    shapes = {
        "fc": (hidden, len(aux_layers) * hidden),
        "lm_head": (vocab // 2, hidden),
        "midlayer.self_attn.q_proj": (hidden, 2 * hidden),
        "midlayer.self_attn.k_proj": (keys, 2 * hidden),
        "midlayer.self_attn.v_proj": (keys, 2 * hidden),
        "midlayer.self_attn.o_proj": (hidden, hidden),
        "midlayer.mlp.gate_proj": (inner, hidden),
        "midlayer.mlp.up_proj": (inner, hidden),
        "midlayer.mlp.down_proj": (hidden, inner),
    }
    norms = ("norm", *(f"midlayer.{n}" for n in _EAGLE3_NORMS))
    weights = {f"{name}.weight": 0.2 * torch.randn(shape) for name, shape in shapes.items()}
    weights |= {f"{name}.weight": torch.ones(hidden) for name in norms}
    weights["d2t"] = torch.zeros(vocab // 2, dtype=torch.long)
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def build_mimo(folder: Path, tokenizer: Path) -> Path:
    """Write the configuration of a tiny MiMo, which has a prediction layer of its own.

    For vLLM's load format `dummy`: there are no weights.
    """
    config = {
        "architectures": ["MiMoForCausalLM"],
        "model_type": "qwen2",
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_nextn_predict_layers": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "vocab_size": 49152,
        "max_position_embeddings": 512,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    for name in TOKENIZER_FILES:
        if (tokenizer / name).exists():
            shutil.copy(tokenizer / name, folder / name)
    return folder
