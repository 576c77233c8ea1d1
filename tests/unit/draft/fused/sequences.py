"""Sequences on a fused model beside the same ones on transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from rayspec.draft.fused import FusedLlamaModel
from rayspec.draft.fused.plan import FusedPlan
from tests.support.chunks import chunks_of


def reference(config: Any, dtype: torch.dtype, device: str, seed: int = 0) -> Any:
    """Return a transformers model with random weights, among them gains and biases.

    Its rotary frequencies stay in float32, as a loaded checkpoint's do, whatever it is cast to.
    """
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config).to(device)
    rotary = model.model.rotary_emb
    rotary._apply = lambda *_, **__: rotary
    model = model.to(dtype).eval()
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.data.uniform_(0.5, 1.5)
        elif "bias" in name:
            parameter.data.normal_(0.0, 0.5)
    return model


def tensors(model: Any) -> Mapping[str, torch.Tensor]:
    """Return a model's tensors by name."""
    return dict(model.state_dict())


@dataclass
class Sequences:
    """Token lists, one to a row, whose blocks lie scattered over the cache."""

    model: FusedLlamaModel
    tokens: list[list[int]]
    max_blocks: int
    tables: torch.Tensor = field(init=False)  # [rows + 1, max_blocks], the last for unused rows

    def __post_init__(self) -> None:
        rows = len(self.tokens)
        blocks = (rows + 1) * self.max_blocks
        self.model.allocate(blocks, self.max_blocks)
        scattered = torch.randperm(blocks, generator=torch.Generator().manual_seed(1))
        self.tables = scattered.view(rows + 1, self.max_blocks).to(torch.int32)

    def prefill(self, row: int, chunk: int, upto: int) -> None:
        """Write the KV of a row's first `upto` tokens, `chunk` at a time."""
        for start in range(0, upto, chunk):
            tokens = self.tokens[row][start : min(start + chunk, upto)]
            part = tokens, start, self.tables[row]
            self.model.prefill(chunks_of(self.model.device, [part]))

    def fill(self, plan: FusedPlan) -> None:
        """Aim a plan at every row's newest tokens; rows beyond the sequences go unused."""
        size, width = self.model.block_size, plan.width
        for i in range(plan.rows):
            used = i < len(self.tokens)
            tokens = self.tokens[i] if used else [0] * width
            table = self.tables[i if used else -1]
            plan.block_table[i].copy_(table)
            plan.seq_lens[i] = len(tokens)
            for j in range(width):
                at = len(tokens) - width + j
                plan.input_ids[i * width + j] = tokens[at]
                plan.positions[i * width + j] = at
                plan.slot_mapping[i * width + j] = int(table[at // size]) * size + at % size

    def decode(self, plan: FusedPlan, run: Callable[[], torch.Tensor] | None = None) -> Any:
        """Return the logits [sequences, head] after every row's newest tokens."""
        self.fill(plan)
        return (run or plan.run)()[: len(self.tokens)].clone()

    @torch.no_grad()
    def expected(self, reference: Any) -> torch.Tensor:
        """Return what transformers says of the same, each sequence by itself."""
        device = self.model.device
        rows = [torch.tensor([tokens], device=device) for tokens in self.tokens]
        logits = torch.stack([reference(ids).logits[0, -1] for ids in rows])
        kept = self.model.token_ids
        return (logits if kept is None else logits[:, kept.long()]).float()
