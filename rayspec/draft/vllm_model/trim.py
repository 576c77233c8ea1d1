"""An output head over a part of the vocabulary: a draft reads fewer bytes for its logits.

What is cut can never be drafted; texts do not change, because drafts are hints. vLLM's head layer
as of 0.32.0.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from vllm.config import set_current_vllm_config
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
from vllm.utils.torch_utils import set_default_torch_dtype

from rayspec.errors import ConfigError

__all__ = ["read_token_ids", "trimmed_head"]


def read_token_ids(path: str, vocab_size: int) -> torch.Tensor:
    """Return the token ids of a .json, .npy or .pt file, [trimmed] int32 on the CPU.

    ConfigError when the file is unreadable or the ids are not distinct ids of the vocabulary.
    """
    try:
        match Path(path).suffix:
            case ".json":
                raw = torch.tensor(json.loads(Path(path).read_text(encoding="utf-8")))
            case ".npy":
                raw = torch.from_numpy(np.load(path, allow_pickle=False))
            case ".pt":
                raw = torch.as_tensor(torch.load(path, weights_only=True))
            case _:
                raise ConfigError("vocab_trim", path, "takes a .json, .npy or .pt file of ids")
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise ConfigError("vocab_trim", path, f"cannot be read: {error}") from error
    if raw.ndim != 1 or not len(raw) or raw.is_floating_point() or raw.is_complex():
        raise ConfigError("vocab_trim", path, "must be one list of token ids")
    if int(raw.min()) < 0 or int(raw.max()) >= vocab_size:
        raise ConfigError("vocab_trim", path, f"has ids outside of 0..{vocab_size - 1}")
    if len(raw.unique()) != len(raw):
        raise ConfigError("vocab_trim", path, "has an id twice")
    return raw.to(torch.int32)


def trimmed_head(head: Any, token_ids: torch.Tensor, config: Any) -> Any:
    """Return a head with the rows of `token_ids` of `head`, in their order and on its device."""
    rows = head.weight.data[token_ids.to(head.weight.device, torch.int64)]  # [trimmed, hidden]
    with (
        set_current_vllm_config(config),
        set_default_torch_dtype(rows.dtype),
        rows.device,
    ):
        trimmed = ParallelLMHead(len(token_ids), rows.shape[1])
    trimmed.weight.data.zero_()  # it is padded to a multiple of 64 rows
    trimmed.weight.data[: len(token_ids)] = rows
    trimmed.quant_method.process_weights_after_loading(trimmed)
    return trimmed
