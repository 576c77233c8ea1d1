"""An output head over a part of the vocabulary: a draft reads fewer bytes for its logits.

What is cut can never be drafted; texts do not change, because drafts are hints. vLLM's head layer
as of 0.32.0.
"""

from __future__ import annotations

from typing import Any

import torch
from vllm.config import set_current_vllm_config
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
from vllm.utils.torch_utils import set_default_torch_dtype

__all__ = ["trimmed_head"]


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
