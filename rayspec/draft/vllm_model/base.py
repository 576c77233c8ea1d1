"""What draft rounds need of a model: a paged KV cache, prefill, and decoding that can be captured.

The rounds own slots, tokens and blocks; the model owns weights and the cache's storage.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

import torch

__all__ = ["WIDEST", "Chunks", "DecodePlan", "DraftModel"]

# A plan of a general attention kernel takes any width; longer gaps are prefilled.
WIDEST: Final = 32


@dataclass(frozen=True, slots=True)
class Chunks:
    """Tokens of several sequences to prefill in one forward, sequence after sequence.

    `spans` says for each sequence which positions they are, from and up to; the tensors say the
    same on the device.
    """

    spans: tuple[tuple[int, int], ...]
    ids: torch.Tensor  # [tokens] int32
    positions: torch.Tensor  # [tokens] int64
    owner: torch.Tensor  # [tokens] int64, the token's place in `spans`
    starts: torch.Tensor  # [sequences + 1] int32, where each one's tokens begin
    seq_lens: torch.Tensor  # [sequences] int32, tokens up to the end of its span
    block_table: torch.Tensor  # [sequences, max_blocks] int32


class DecodePlan(Protocol):
    """Static buffers for `rows` sequences of `width` new tokens each, and the forward over them.

    Row-major: token j of row i is at i * width + j; its query positions end at the row's newest
    token. Unused rows point at a block of their own and have a sequence length of `width`.
    """

    rows: int
    width: int
    input_ids: torch.Tensor  # [rows * width] int32
    positions: torch.Tensor  # [rows * width] int64
    seq_lens: torch.Tensor  # [rows] int32, with the new tokens
    block_table: torch.Tensor  # [rows, max_blocks] int32
    slot_mapping: torch.Tensor  # [rows * width] int64, block * block_size + offset

    def run(self) -> torch.Tensor:
        """Write the tokens' KV and return the logits of each row's newest token, [rows, vocab].

        Launches kernels on the current stream and nothing else, so that it can be captured into a
        CUDA graph; the result may be overwritten by the next run of any plan. It has the model's
        dtype, its rows may lie further apart than they are long, and where the model has
        `token_ids`, column i is that of token `token_ids[i]`.
        """


class DraftModel(Protocol):
    """A causal LM whose KV cache is a pool of blocks."""

    device: torch.device
    vocab_size: int  # of the tokenizer, also where the head is trimmed
    token_ids: torch.Tensor | None  # [trimmed] int32, distinct; None means all, in order
    block_size: int
    max_len: int  # tokens that a sequence may have
    kv_bytes_per_token: int
    weight_bytes: int  # that one decoding step reads
    widest: int  # new tokens of a sequence that a plan takes, at most

    def allocate(self, blocks: int, max_blocks: int) -> None:
        """Take the KV cache: `blocks` in all, at most `max_blocks` for one sequence."""

    def plan(self, rows: int, width: int) -> DecodePlan:
        """Return static buffers for decoding; call after `allocate`."""

    def prefill(self, chunks: Chunks) -> None:
        """Write the KV of chunks whose context is in the cache already, eagerly.

        Nothing waits for the device.
        """

    def close(self) -> None:
        """Release weights and cache; idempotent."""
