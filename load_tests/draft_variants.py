"""One decode step of a dummy-weight draft, in each of the ways that it can be computed.

A variant is made once per shape; `Variant.step` gives a function without arguments that can be
captured into a CUDA graph, over rows with so many tokens of context.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch

__all__ = ["VARIANTS", "Variant"]

Step = Callable[[], Any]


class Variant(Protocol):
    """A way to decode; `weight_bytes` is what a step reads."""

    weight_bytes: int

    def step(self, batch: int, context: int) -> tuple[Step, Callable[[], None]]:
        """Return a step of `batch` rows, and what to call now and then to keep it repeatable."""

    def close(self) -> None:
        """Let the device memory go."""


class Planned:
    """Anything that implements rayspec's `DraftModel`."""

    def __init__(self, model: Any, rows: int, context: int) -> None:
        self._model = model
        self.weight_bytes: int = model.weight_bytes
        # One block beyond, so that a context that fills its blocks has room for a token.
        self._per_row = context // model.block_size + 1
        model.allocate(rows * self._per_row, self._per_row)

    def step(self, batch: int, context: int) -> tuple[Step, Callable[[], None]]:
        """See `Variant`."""
        plan, size = self._model.plan(batch, 1), self._model.block_size
        table = torch.arange(batch * self._per_row, dtype=torch.int32).view(batch, -1)
        at = context - 1
        plan.block_table.copy_(table)
        plan.seq_lens.fill_(context)
        plan.positions.fill_(at)
        plan.slot_mapping.copy_(table[:, at // size].long() * size + at % size)
        plan.input_ids.random_(0, 1000)
        return plan.run, lambda: None

    def close(self) -> None:
        """See `Variant`."""
        self._model.close()


class Transformers:
    """transformers' eager forward with a static cache: the baseline of every captured step."""

    def __init__(self, folder: Path, rows: int, context: int) -> None:
        from transformers import AutoModelForCausalLM, LlamaConfig

        values = json.loads((folder / "config.json").read_text())
        self._config = LlamaConfig(**values)
        with torch.device("cuda"):
            model = AutoModelForCausalLM.from_config(self._config, dtype=torch.bfloat16)
        self._model: Any = model.eval()
        self.weight_bytes = sum(p.nbytes for p in self._model.parameters())
        if not values["tie_word_embeddings"]:
            self.weight_bytes -= self._model.get_input_embeddings().weight.nbytes

    def step(self, batch: int, context: int) -> tuple[Step, Callable[[], None]]:
        """See `Variant`."""
        from transformers import StaticCache

        cache = StaticCache(config=self._config, max_cache_len=context + 64)
        ids = torch.randint(0, 1000, (batch, 1), device="cuda")
        at = torch.full((batch, 1), context - 1, device="cuda")

        def rewind() -> None:
            # Every forward moves the cache's end; a graph's replays would run past it.
            for layer in cache.layers:
                if layer.is_initialized:
                    layer.cumulative_length.fill_(context - 1)

        def step() -> torch.Tensor:
            with torch.no_grad():
                out = self._model(ids, past_key_values=cache, position_ids=at, use_cache=True)
            logits: torch.Tensor = out.logits
            return logits

        step()
        rewind()
        return step, rewind

    def close(self) -> None:
        """See `Variant`."""
        self._model = None


def _vllm(**settings: Any) -> Callable[[Path, int, int], Variant]:
    def make(folder: Path, rows: int, context: int) -> Variant:
        from rayspec.draft.vllm_model.model import VllmDraftModel
        from rayspec.draft.vllm_model.spec import VllmModelSpec

        spec = VllmModelSpec(
            path=str(folder),
            device="cuda",
            load_format="dummy",
            max_rows=max(rows, 8),
            **settings,
        )
        return Planned(VllmDraftModel(spec), rows, context)

    return make


def _fused(**settings: Any) -> Callable[[Path, int, int], Variant]:
    def make(folder: Path, rows: int, context: int) -> Variant:
        from rayspec.draft.fused import FusedLlamaModel

        model = FusedLlamaModel.load(folder, dummy=True, device="cuda", **settings)
        return Planned(model, rows, context)

    return make


def _mixed(folder: Path, rows: int, context: int) -> Variant:
    from rayspec.draft.rounds.models import ModelChoice, load_draft_model

    choice = ModelChoice(
        path=str(folder),
        device="cuda",
        max_len=context + 64,
        max_rows=max(rows, 8),
        load_format="dummy",
    )
    return Planned(load_draft_model(choice), rows, context)


VARIANTS: dict[str, Callable[[Path, int, int], Variant]] = {
    "flash": _vllm(attention="FLASH_ATTN"),
    "triton": _vllm(attention="TRITON_ATTN"),
    "flash-block64": _vllm(attention="FLASH_ATTN", block_size=64),
    "flash-block128": _vllm(attention="FLASH_ATTN", block_size=128),
    "flash-fp8": _vllm(attention="FLASH_ATTN", quantization="fp8"),
    "fused": _fused(),
    "fused-fp8": _fused(quantization="fp8"),
    "mixed": _mixed,
    "transformers": Transformers,
}
