"""Compares a model with the one that it came from, both run by transformers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from load_tests.prompts import Prompt, sample


@dataclass(frozen=True, slots=True)
class Comparison:
    """How two models agree on the same tokens."""

    positions: int
    same_argmax: float  # share of positions
    overlap: float  # Σ min(p, q), averaged: the acceptance of sampled drafts at temperature 1
    logit_difference: float  # largest
    widest_margin: float  # largest gap of the first model's top logits where they disagree

    def __str__(self) -> str:
        return (
            f"{self.positions} positions: argmax equal in {self.same_argmax:.2%}, overlap "
            f"{self.overlap:.4f}, logits differ by at most {self.logit_difference:.2e}, "
            f"widest margin overturned {self.widest_margin:.3g}"
        )


def compare(
    source: Path,
    folder: Path,
    *,
    dtype: torch.dtype,
    device: str = "cpu",
    prompts: int = 6,
    tokens: int = 48,
) -> Comparison:
    """Compare the model in `folder` with the one in `source` on the latter's greedy answers."""
    tokenizer = AutoTokenizer.from_pretrained(source)
    small = _load(source, dtype, device)
    texts = [_answer(small, tokenizer, prompt, tokens) for prompt in sample(prompts)]
    expected = _logits(small, texts)
    return agreement(expected, _logits(_load(folder, dtype, device), texts))


def agreement(expected: torch.Tensor, found: torch.Tensor) -> Comparison:
    """Compare two models' logits [positions, vocabulary] at the same positions."""
    differ = expected.argmax(-1) != found.argmax(-1)
    margins = expected.topk(2).values.diff().neg()[:, 0][differ]
    overlap = torch.minimum(expected.softmax(-1), found.softmax(-1)).sum(-1)
    return Comparison(
        positions=len(expected),
        same_argmax=1 - differ.float().mean().item(),
        overlap=overlap.mean().item(),
        logit_difference=(expected - found).abs().max().item(),
        widest_margin=margins.max().item() if len(margins) else 0.0,
    )


def _load(folder: Path, dtype: torch.dtype, device: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(device).eval()


def _answer(model: Any, tokenizer: Any, prompt: Prompt, tokens: int) -> tuple[int, torch.Tensor]:
    """Return the length of the prompt, and prompt and answer [1, length]."""
    inputs = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt.text}], add_generation_prompt=True, return_tensors="pt"
    ).to(model.device)
    answer = model.generate(**inputs, max_new_tokens=tokens, do_sample=False)
    return inputs["input_ids"].shape[1], answer


@torch.inference_mode()
def _logits(model: Any, texts: list[tuple[int, torch.Tensor]]) -> torch.Tensor:
    """Return the logits of all answered positions, [positions, vocabulary] in float32."""
    rows = [model(ids).logits[0, start - 1 : -1].float() for start, ids in texts]
    return torch.cat(rows)
