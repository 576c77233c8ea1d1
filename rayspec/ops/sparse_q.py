"""Spreads sparse draft distributions over vLLM's dense draft logits, and takes them back.

vLLM verifies draft d at position i of slot s against `softmax(draft_logits[s, i] / temperature)`,
with -inf for what the draft could not have said. Read at vLLM 0.32.0.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

__all__ = ["DenseDraftLogits"]


class DenseDraftLogits:
    """`logits` [S, K, V] float32, -inf but for the newest drafts' distributions.

    `ids` int32 and `weights` float32 [S, K, M] say the same in few words, -1 for no token:
    `weights` are logarithms with the temperature in them.
    """

    def __init__(
        self, slots: int, k_max: int, vocab_size: int, q_top: int, device: torch.device
    ) -> None:
        self.logits = torch.full(
            (slots, k_max, vocab_size), float("-inf"), dtype=torch.float32, device=device
        )
        # What each row of `logits` holds besides -inf.
        self.ids = torch.full((slots, k_max, q_top), -1, dtype=torch.int32, device=device)
        self.weights = torch.zeros(self.ids.shape, dtype=torch.float32, device=device)

    def scatter(
        self,
        drafts: torch.Tensor,
        q: torch.Tensor,
        slot_of: torch.Tensor,
        rows: int,
        temperature: torch.Tensor,
    ) -> None:
        """Take the distributions of the batch's drafts [S, K + 1] from `q` [S, K, 2M].

        A draft that is not among its own M ids, and every filler, counts as certain: verification
        is then exact for a draft that could have said nothing else.
        """
        k_max, vocab_size = self.logits.shape[1:]
        _scatter_q[(rows, k_max)](
            self.logits,
            self.ids,
            self.weights,
            drafts,
            q,
            slot_of,
            temperature,
            K=k_max,
            VOCAB=vocab_size,
            TOP=self.ids.shape[2],
            TOP_PO2=triton.next_power_of_2(self.ids.shape[2]),
            num_warps=1,
        )


@triton.jit(do_not_specialize_on_alignment=["slot_of", "temperature"])
def _scatter_q(  # type: ignore[no-untyped-def]
    logits,
    held,
    held_weights,
    drafts,
    q,
    slot_of,
    temperature,
    K: tl.constexpr,
    VOCAB: tl.constexpr,
    TOP: tl.constexpr,
    TOP_PO2: tl.constexpr,
):
    row = tl.program_id(0)
    position = tl.program_id(1)
    slot = tl.load(slot_of + row).to(tl.int64)
    line = slot * K + position
    entry = tl.arange(0, TOP_PO2)
    within = entry < TOP
    old = tl.load(held + line * TOP + entry, mask=within, other=-1)
    nothing = tl.full((TOP_PO2,), float("-inf"), tl.float32)
    tl.store(logits + line * VOCAB + old, nothing, mask=within & (old >= 0))
    # The new entries may lie where old ones were taken back by other threads.
    tl.debug_barrier()
    draft = tl.load(drafts + row * (K + 1) + position).to(tl.int32)
    count = tl.load(drafts + row * (K + 1) + K)
    ids = tl.load(q + line * 2 * TOP + entry, mask=within, other=-1)
    words = tl.load(q + line * 2 * TOP + TOP + entry, mask=within, other=0)
    weights = words.to(tl.float32, bitcast=True)
    usable = within & (ids >= 0) & (ids < VOCAB)
    usable = usable & (weights > float("-inf")) & (weights < float("inf"))
    scale = tl.load(temperature + slot).to(tl.float32)
    named = tl.sum((usable & (ids == draft)).to(tl.int32), axis=0)
    certain = (position >= count) | (named != 1) | (scale == 0.0)
    ids = tl.where(certain, tl.where(entry == 0, draft, -1), tl.where(usable, ids, -1))
    # vLLM divides by the temperature again.
    values = tl.where(certain, 0.0, weights * scale)
    tl.store(logits + line * VOCAB + ids, values, mask=within & (ids >= 0))
    tl.store(held + line * TOP + entry, ids, mask=within)
    tl.store(held_weights + line * TOP + entry, tl.where(certain, 0.0, weights), mask=within)
