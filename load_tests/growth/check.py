"""Compares a grown model with the small one, both run by transformers on the CPU."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from load_tests.prompts import PROMPTS

from .model import GrownModel


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
    source: Path, grown: GrownModel, folder: Path, dtype: str, *, prompts: int = 6, tokens: int = 48
) -> Comparison:
    """Compare on the small model's own greedy answers; `folder` holds the weights meanwhile."""
    precision = getattr(torch, dtype)
    small = AutoModelForCausalLM.from_pretrained(source, dtype=precision).eval()
    texts = [
        _answer(small, AutoTokenizer.from_pretrained(source), p, tokens) for p in range(prompts)
    ]
    expected = _logits(small, texts)
    grown.write(folder, precision)
    found = _logits(AutoModelForCausalLM.from_pretrained(folder, dtype=precision).eval(), texts)
    return agreement(expected, found)


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


def _answer(model: Any, tokenizer: Any, index: int, tokens: int) -> tuple[int, torch.Tensor]:
    """Return the length of the prompt, and prompt and answer [1, length]."""
    chosen = PROMPTS[index * 31 % len(PROMPTS)]
    inputs = tokenizer.apply_chat_template(
        [{"role": "user", "content": chosen.text}], add_generation_prompt=True, return_tensors="pt"
    )
    ids = inputs["input_ids"]
    answer = model.generate(**inputs, max_new_tokens=tokens, do_sample=False)
    return ids.shape[1], answer


@torch.inference_mode()
def _logits(model: Any, texts: list[tuple[int, torch.Tensor]]) -> torch.Tensor:
    """Return the logits of all answered positions, [positions, vocabulary] in float32."""
    rows = [model(ids).logits[0, start - 1 : -1].float() for start, ids in texts]
    return torch.cat(rows)
