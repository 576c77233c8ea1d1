"""Decoding with static buffers. Read at vLLM 0.32.0."""

from __future__ import annotations

from collections.abc import Callable

import torch

from rayspec.draft.vllm_model.attention import Attention, Batch

__all__ = ["Forward", "VllmDecodePlan"]

# (ids [n] int32, positions [n] int64, metadata by layer, slots by layer) -> hidden [n, hidden]
Forward = Callable[
    [torch.Tensor, torch.Tensor, dict[str, object], dict[str, torch.Tensor]], torch.Tensor
]


class VllmDecodePlan:
    """Static buffers for `rows` sequences of `width` new tokens; see `base.DecodePlan`."""

    def __init__(
        self,
        *,
        rows: int,
        width: int,
        max_blocks: int,
        block_size: int,
        attention: Attention,
        forward: Forward,
        head: Callable[[torch.Tensor], torch.Tensor],
        device: torch.device,
    ) -> None:
        self.rows = rows
        self.width = width
        tokens = rows * width
        self.input_ids = torch.zeros(tokens, dtype=torch.int32, device=device)
        self.positions = torch.arange(width, device=device).repeat(rows)
        self.seq_lens = torch.full((rows,), width, dtype=torch.int32, device=device)
        self.block_table = torch.zeros((rows, max_blocks), dtype=torch.int32, device=device)
        self.slot_mapping = torch.arange(width, device=device).repeat(rows)
        starts = torch.arange(0, tokens + 1, width, dtype=torch.int32)
        self._batch = Batch(
            starts=starts.to(device),
            starts_cpu=starts,
            seq_lens=self.seq_lens,
            block_table=self.block_table,
            slot_mapping=self.slot_mapping,
            max_query=width,
            # A bound that holds at every replay: a graph keeps what the host said at its capture.
            max_seq=max_blocks * block_size,
        )
        self._attention = attention
        self._forward = forward
        self._head = head
        self._slots = attention.slots(self.slot_mapping)
        self._metadata = attention.build(self._batch, once=False)

    @torch.no_grad()
    def run(self) -> torch.Tensor:
        """Write the tokens' KV and return each row's newest logits; see `base.DecodePlan`."""
        if self._attention.refreshable:
            self._attention.refresh(self._metadata)
        else:
            # vLLM's CPU kernels share work by lengths read on the host.
            self._metadata = self._attention.build(self._batch, once=True)
        hidden = self._forward(self.input_ids, self.positions, self._metadata, self._slots)
        if self.width > 1:
            hidden = hidden.view(self.rows, self.width, -1)[:, -1].contiguous()  # [rows, hidden]
        return self._head(hidden)
