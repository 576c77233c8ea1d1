"""Which implementation of a draft model the rounds run on."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Literal

from rayspec.draft.vllm_model.base import DraftModel
from rayspec.errors import ConfigError

__all__ = ["ModelChoice", "load_draft_model"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChoice:
    """A model folder and how to run it; `fused` None takes the fused kernels where they fit."""

    path: str
    device: str
    max_len: int
    max_rows: int
    quantization: Literal["none", "fp8"] = "none"
    vocab_trim: str | None = None
    load_format: str = "auto"
    fused: bool | None = None


def load_draft_model(choice: ModelChoice) -> DraftModel:
    """Load the model; ConfigError or ModelError when it cannot be had so."""
    reason = _not_fused(choice)
    if choice.fused and reason is not None:
        raise ConfigError("fused", True, reason)
    if reason is None:
        return _fused(choice)
    logger.info("%s runs on vLLM's model classes: %s", choice.path, reason)
    from rayspec.draft.vllm_model.model import VllmDraftModel
    from rayspec.draft.vllm_model.spec import VllmModelSpec

    return VllmDraftModel(
        VllmModelSpec(
            path=choice.path,
            device=choice.device,
            quantization=choice.quantization,
            load_format=choice.load_format,
            max_len=choice.max_len,
            max_rows=choice.max_rows,
            vocab_trim=choice.vocab_trim,
        )
    )


def _not_fused(choice: ModelChoice) -> str | None:
    """Return why the fused kernels are not taken; None when they are."""
    if choice.fused is False:
        return "fused kernels are switched off"
    if choice.load_format not in ("auto", "dummy"):
        return f"fused kernels cannot load the format {choice.load_format}"
    from rayspec.draft.fused import supports

    return supports(choice.path)


def _fused(choice: ModelChoice) -> DraftModel:
    import torch

    from rayspec.draft.fused import FusedLlamaModel
    from rayspec.draft.identity import model_vocab_size
    from rayspec.draft.vllm_model.vocabulary import read_token_ids

    device = torch.device(choice.device)
    if device.type == "cuda":
        device = torch.device("cuda", device.index or 0)
        torch.cuda.set_device(device)
    ids = None
    if choice.vocab_trim is not None:
        ids = read_token_ids(choice.vocab_trim, model_vocab_size(choice.path))
    model: Any = FusedLlamaModel.load(
        choice.path,
        dummy=choice.load_format == "dummy",
        device=device,
        token_ids=ids,
        quantization=choice.quantization,
    )
    loaded: DraftModel = model
    return loaded
