"""The tensors of a verification, as every implementation of it takes them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Final

import torch

__all__ = ["MOST_NAMED", "Batch"]

MOST_NAMED: Final = 32  # tokens that a draft can have been drawn from; the kernels' constant too
_FLOATING: Final = (torch.bfloat16, torch.float16, torch.float32)


@dataclass(frozen=True)
class Batch:
    """Drafts of B requests, and the target's N rows of logits for them.

    `logits` [N, V] float32, float16 or bfloat16, any row stride; request b has the rows from
    `cu_num_logits[b]` (int32 [B + 1]) on: one for each draft and one more, at most `k_max + 1`.
    `draft_ids` int32 [N]: row i's own input token, so `draft_ids[i + 1]` is what row i tests; -1
    and what `invalid` (bool [N]) marks is rejected, and so are drafts from `n_valid` (int32 [B])
    on. By slot, for `slot_of` (int32 [B]): `temperature`, `top_p`, `min_p` float32, `top_k` int32,
    `seeds` int64; None limits nobody. Randomness is a function of the seed, `positions` (int64 [N],
    below 2³²) and `step` (int64 [1], modulo 2³²), read on the device.

    A draft counts as certain, unless `q_ids` int32 and `q_logits` float32 [S, k_max, M], M ≤ 32,
    the last dimension dense, say that draft i of slot s was drawn from the softmax of
    `q_logits[s, i]`, which has the temperature in it. One that is not among its own tokens counts
    as certain; ids that are no tokens are left out.
    """

    logits: torch.Tensor
    draft_ids: torch.Tensor
    cu_num_logits: torch.Tensor
    slot_of: torch.Tensor
    temperature: torch.Tensor
    top_k: torch.Tensor | None
    top_p: torch.Tensor | None
    min_p: torch.Tensor | None
    seeds: torch.Tensor
    positions: torch.Tensor
    step: torch.Tensor
    k_max: int
    n_valid: torch.Tensor | None = None
    invalid: torch.Tensor | None = None
    q_ids: torch.Tensor | None = None
    q_logits: torch.Tensor | None = None

    @classmethod
    def schema(cls) -> str:
        """Return the parameters of a torch op that takes `arguments`."""
        kinds = {"torch.Tensor": "Tensor", "torch.Tensor | None": "Tensor?", "int": "int"}
        return ", ".join(f"{kinds[str(field.type)]} {field.name}" for field in fields(cls))

    @property
    def arguments(self) -> tuple[Any, ...]:
        """The fields, in their order."""
        return tuple(getattr(self, name) for name in _NAMES)

    @property
    def truncates(self) -> bool:
        """Whether any request may have a limit on the tokens that count."""
        return self.top_k is not None or self.top_p is not None or self.min_p is not None

    def check(self) -> None:
        """Raise ValueError where a shape, a type or a layout is not as described."""
        if self.logits.dim() != 2 or self.logits.stride(1) != 1:
            raise ValueError("logits need [N, V] with dense rows")
        if self.logits.dtype not in _FLOATING:
            raise ValueError(f"logits are {self.logits.dtype}, not one of {_FLOATING}")
        for name, dtype in _TYPES.items():
            tensor = getattr(self, name)
            if tensor is not None and tensor.dtype != dtype:
                raise ValueError(f"{name} is {tensor.dtype}, needs {dtype}")
        if self.cu_num_logits.shape[0] != self.slot_of.shape[0] + 1:
            raise ValueError("cu_num_logits needs B + 1 entries")
        if (self.q_ids is None) != (self.q_logits is None):
            raise ValueError("q needs ids and logits")
        if self.q_ids is None or self.q_logits is None:
            return
        if self.q_ids.dim() != 3 or self.q_ids.shape[2] > MOST_NAMED:
            raise ValueError(f"q needs [S, K, M <= {MOST_NAMED}], not {tuple(self.q_ids.shape)}")
        if self.q_ids.shape != self.q_logits.shape or self.q_ids.stride() != self.q_logits.stride():
            raise ValueError("ids and logits of q need one shape and one layout")
        if self.q_ids.stride(2) != 1:
            raise ValueError("q needs a dense last dimension")


_NAMES: Final = tuple(field.name for field in fields(Batch))
_TYPES: Final = {
    **dict.fromkeys(("draft_ids", "cu_num_logits", "slot_of", "top_k", "n_valid"), torch.int32),
    **dict.fromkeys(("seeds", "positions", "step"), torch.int64),
    **dict.fromkeys(("temperature", "top_p", "min_p", "q_logits"), torch.float32),
    "q_ids": torch.int32,
    "invalid": torch.bool,
}
