"""The draft that is trained: made for its target, and written as an ordinary model folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Final

import torch

from rayspec.distill.presets import Preset
from rayspec.errors import ConfigError, ModelError

__all__ = ["build", "load", "principal", "write"]

# What makes a folder a tokenizer, of those that a target has.
_TOKENIZER_FILES: Final = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
)


def load(folder: Path, dtype: torch.dtype, device: torch.device) -> Any:
    """Return the causal language model of a folder, to be asked only."""
    from transformers import AutoModelForCausalLM

    try:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder}: transformers cannot load it: {error}") from error
    return model.to(device).eval()


def build(target: Path, preset: Preset, *, seed: int = 0) -> Any:
    """Return an untrained draft for the target in a folder, float32 on the CPU.

    Its embedding, which is its head as well, begins as the target's output embedding in its
    principal components: tokens that the target takes for similar are so from the start.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    config = json.loads((target / "config.json").read_text(encoding="utf-8"))
    torch.manual_seed(seed)
    student = LlamaForCausalLM(LlamaConfig(**preset.config(config))).to(torch.float32)
    weight = load(target, torch.float32, torch.device("cpu")).get_output_embeddings().weight
    embedding = student.get_input_embeddings().weight
    if weight.shape[0] != embedding.shape[0]:
        raise ConfigError(
            "target",
            str(target),
            f"its head has {weight.shape[0]} rows, its config.json names "
            f"{embedding.shape[0]} tokens",
        )
    start = principal(weight.detach(), preset.hidden)
    with torch.no_grad():
        # As large as the other weights at first, whatever the target's scale is.
        scale = config.get("initializer_range", 0.02) / start.std().clamp_min(1e-6)
        embedding[:, : start.shape[1]] = start * scale
    return student


def principal(weight: torch.Tensor, width: int) -> torch.Tensor:
    """Return the rows of `weight` [n, hidden] in their first principal components, [n, width].

    Fewer columns where hidden is less than `width`. Not centred: a head's common part is a logit
    that all tokens share.
    """
    _, vectors = torch.linalg.eigh(weight.T @ weight)  # ascending
    return weight @ vectors.flip(1)[:, :width]


def write(student: Any, target: Path, out: Path) -> None:
    """Write the draft in bfloat16 with the tokenizer of its target."""
    student.to(torch.bfloat16).save_pretrained(out)
    for name in _TOKENIZER_FILES:
        if (target / name).is_file():
            shutil.copyfile(target / name, out / name)
    for path in out.iterdir():
        path.chmod(0o644)  # safetensors keep everybody else out
