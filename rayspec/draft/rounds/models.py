"""Which implementation of a draft model the rounds run on."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rayspec.draft.vllm_model.base import DraftModel
from rayspec.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from rayspec.draft.fused import FusedLlamaModel
    from rayspec.draft.vllm_model.model import VllmDraftModel

__all__ = ["ModelChoice", "load_draft_model"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChoice:
    """A model folder and how to run it.

    `fused` None takes the fused kernels where they fit: on CUDA for the steps that they run faster
    than vLLM's classes do, else alone. True takes them alone, False never.
    """

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
        alone = choice.fused or not choice.device.startswith("cuda")
        return _fused(choice) if alone else _mixed(choice)
    logger.info("%s runs on vLLM's model classes: %s", choice.path, reason)
    return _vllm(choice)


def _vllm(choice: ModelChoice) -> VllmDraftModel:
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


def _mixed(choice: ModelChoice) -> DraftModel:
    from rayspec.draft.fused.shape import FusedShape, read_config
    from rayspec.draft.rounds.mixed import MixedDraftModel
    from rayspec.draft.vllm_model.shared import layer_tensors

    vllm = _vllm(choice)
    shape = FusedShape.of(read_config(choice.path))
    tensors = None
    # What vLLM has quantized or trimmed is read from the folder again.
    if choice.quantization == "none" and choice.vocab_trim is None:
        tensors = layer_tensors(
            vllm.module, shape.heads, shape.kv_heads, shape.head_dim, shape.vocab
        )
    return MixedDraftModel(_fused(choice, tensors), vllm)


def _not_fused(choice: ModelChoice) -> str | None:
    """Return why the fused kernels are not taken; None when they are."""
    if choice.fused is False:
        return "fused kernels are switched off"
    if choice.load_format not in ("auto", "dummy"):
        return f"fused kernels cannot load the format {choice.load_format}"
    from rayspec.draft.fused import supports

    return supports(choice.path)


def _fused(
    choice: ModelChoice, tensors: Iterable[tuple[str, torch.Tensor]] | None = None
) -> FusedLlamaModel:
    import torch

    from rayspec.draft.fused import FusedLlamaModel
    from rayspec.draft.identity import model_vocab_size
    from rayspec.draft.vocabulary import read_token_ids

    device = torch.device(choice.device)
    if device.type == "cuda":
        device = torch.device("cuda", device.index or 0)
        torch.cuda.set_device(device)
    ids = None
    if choice.vocab_trim is not None:
        ids = read_token_ids(choice.vocab_trim, model_vocab_size(choice.path))
    return FusedLlamaModel.load(
        choice.path,
        dummy=choice.load_format == "dummy" and tensors is None,
        tensors=tensors,
        device=device,
        token_ids=ids,
        quantization=choice.quantization,
    )
