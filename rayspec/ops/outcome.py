"""Packs a step's outcome into a frame, and counts what the target accepted."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from rayspec.link.frames import T2D_MAGIC
from rayspec.ops.state import COUNTERS, SLOT_FIELDS, ExchangeState

__all__ = ["Outcome", "StepWords", "pack_outcome"]


@dataclass(frozen=True, slots=True)
class StepWords:
    """What a step frame's header says of the step."""

    epoch: int
    step: int
    cseq_required: int
    k_want: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """A step's outcome on the device, row = position in the batch of `rows` requests.

    `slot_of` int [B]; `num_sampled`, `num_rejected` int32 [B]; `token_ids` int32 [S, max_len] and
    `lengths` int32 [S] by slot, with this step's tokens; `last_sampled` int64 [S] by slot.
    """

    rows: int
    slot_of: torch.Tensor
    num_sampled: torch.Tensor
    num_rejected: torch.Tensor
    token_ids: torch.Tensor
    lengths: torch.Tensor
    last_sampled: torch.Tensor


def pack_outcome(
    frame: torch.Tensor,
    outcome: Outcome,
    state: ExchangeState,
    words: StepWords,
    *,
    shard: int = 0,
    shards: int = 1,
) -> None:
    """Write the frame [S + 1, W] of a step; the slots of other shards are not in it.

    A row says what the request got since it was last told of. One that got more than fits carries
    generation -1 from then on, which makes the draft ask for the slot again.
    """
    slots, width = frame.shape[0] - 1, frame.shape[1]
    _pack_outcome[(slots + 1,)](
        frame,
        outcome.slot_of,
        outcome.num_sampled,
        outcome.num_rejected,
        outcome.token_ids,
        outcome.lengths,
        state.slots,
        state.counters,
        outcome.rows,
        words.epoch,
        words.step,
        words.cseq_required,
        words.k_want,
        shard,
        MAGIC=T2D_MAGIC,
        SHARDS=shards,
        K=state.k_max,
        K_PO2=triton.next_power_of_2(state.k_max),
        MAX_LEN=outcome.token_ids.stride(0),
        WIDTH=width,
        WIDTH_PO2=triton.next_power_of_2(width),
        BATCH_PO2=triton.next_power_of_2(slots),
        FIELDS=SLOT_FIELDS,
        COUNTERS=len(COUNTERS),
        STEPS=COUNTERS.index("steps"),
        num_warps=1,
    )


@triton.jit(
    do_not_specialize=["batch", "epoch", "step", "cseq", "k_want", "shard"],
    do_not_specialize_on_alignment=[
        "frame",
        "slot_of",
        "num_sampled",
        "num_rejected",
        "token_ids",
        "lengths",
    ],
)
def _pack_outcome(  # type: ignore[no-untyped-def]
    frame,
    slot_of,
    num_sampled,
    num_rejected,
    token_ids,
    lengths,
    slots,
    counters,
    batch,
    epoch,
    step,
    cseq,
    k_want,
    shard,
    MAGIC: tl.constexpr,
    SHARDS: tl.constexpr,
    K: tl.constexpr,
    K_PO2: tl.constexpr,
    MAX_LEN: tl.constexpr,
    WIDTH: tl.constexpr,
    WIDTH_PO2: tl.constexpr,
    BATCH_PO2: tl.constexpr,
    FIELDS: tl.constexpr,
    COUNTERS: tl.constexpr,
    STEPS: tl.constexpr,
):
    row = tl.program_id(0)
    member = tl.arange(0, BATCH_PO2)
    here = member < batch
    slot_ids = tl.load(slot_of + member, mask=here, other=-1).to(tl.int32)
    sampled = tl.load(num_sampled + member, mask=here, other=0).to(tl.int32)
    word = tl.arange(0, WIDTH_PO2)
    if row == 0:
        mine = here & (slot_ids % SHARDS == shard) & (sampled > 0)
        k_of = tl.load(slots + slot_ids * FIELDS + 2, mask=mine, other=0)
        active = tl.sum((mine & (k_of > 0)).to(tl.int32), axis=0)
        words = tl.where(word == 0, MAGIC, -1)
        words = tl.where(word == 1, epoch, words)
        words = tl.where(word == 2, step, words)
        words = tl.where(word == 3, cseq, words)
        words = tl.where(word == 4, active, words)
        words = tl.where(word == 5, k_want, words)
        words = tl.where((word == 6) | (word == 7), 0, words)
        tl.store(frame + word, words, mask=word < WIDTH)
    else:
        slot = row - 1
        hit = here & (slot_ids == slot)
        new = tl.sum(tl.where(hit, sampled, 0), axis=0)
        rejected = tl.load(num_rejected + member, mask=hit, other=0).to(tl.int32)
        verified = new + tl.sum(rejected, axis=0) - 1
        state = slots + slot * FIELDS
        gen = tl.load(state)
        told = tl.load(state + 1)
        k = tl.load(state + 2)
        words = tl.full((WIDTH_PO2,), -1, tl.int32)
        if (new > 0) & (slot % SHARDS == shard):
            drafted = tl.minimum(tl.load(state + 3), verified)
            if drafted > 0:
                accepted = tl.minimum(new - 1, drafted)
                position = tl.arange(0, K_PO2)
                one = tl.full((K_PO2,), 1, tl.int64)
                histogram = counters + COUNTERS + position
                tl.atomic_add(histogram, one, mask=position < drafted)
                tl.atomic_add(histogram + K, one, mask=position < accepted)
                tl.atomic_add(counters + STEPS, tl.full((), 1, tl.int64))
            if k > 0:
                length = tl.load(lengths + slot)
                count = length - told
                if (count < 0) | (count > K + 1):
                    gen = -1
                    count = 0
                    tl.store(state, gen)
                at = told + word - 2
                fresh = (word >= 2) & (word < 2 + count) & (at < MAX_LEN)
                words = tl.load(token_ids + slot.to(tl.int64) * MAX_LEN + at, mask=fresh, other=-1)
                words = tl.where(word == 0, gen, words)
                words = tl.where(word == 1, count, words)
                tl.store(state + 1, length)
        tl.store(frame + row * WIDTH + word, words, mask=word < WIDTH)
