"""Explains why two greedy outputs differ: a near tie that rounding decided, or something wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

__all__ = ["NEAR_TIE", "Divergence", "divergences"]

# Difference of two logits that bfloat16 may turn round: four of its steps between 16 and 32, where
# the logits of such models are.
NEAR_TIE = 0.5


@dataclass(frozen=True, slots=True)
class Divergence:
    """Where two outputs of one prompt part, and how close the two tokens were in float32.

    `behind` is how far the better of the two is behind the likeliest token: 0 if it is that.
    """

    prompt: int
    position: int
    tokens: tuple[int, int]
    margin: float
    behind: float

    @property
    def explained(self) -> bool:
        """Whether rounding can have decided."""
        return self.margin <= NEAR_TIE and self.behind <= NEAR_TIE


def divergences(
    model: Path,
    prompts: Sequence[Sequence[int]],
    ours: Sequence[Sequence[int]],
    theirs: Sequence[Sequence[int]],
    *,
    device: str,
) -> list[Divergence]:
    """Recompute the logits at the first difference of each pair of outputs, in float32."""
    different = [
        number
        for number, (a, b) in enumerate(zip(ours, theirs, strict=True))
        if tuple(a) != tuple(b)
    ]
    if not different:
        return []
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).to(device).eval()
    found = []
    for number in different:
        a, b = ours[number], theirs[number]
        at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), None)
        if at is None:  # one is the other's beginning: nothing that rounding does
            found.append(Divergence(number, min(len(a), len(b)), (-1, -1), float("inf"), 0.0))
            continue
        text = torch.tensor([[*prompts[number], *a[:at]]], device=device)
        with torch.inference_mode():
            logits = network(text).logits[0, -1]
        first, second = float(logits[a[at]]), float(logits[b[at]])
        behind = float(logits.max()) - max(first, second)
        found.append(Divergence(number, at, (a[at], b[at]), abs(first - second), behind))
    return found
