"""Waits for a reply on the device, and turns it into drafts."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import globaltimer

from rayspec.link.channel import Inbox
from rayspec.link.frames import D2T_MAGIC
from rayspec.link.patience import MOST_SKIPPED
from rayspec.ops.outcome import Outcome
from rayspec.ops.state import COUNTERS, SLOT_FIELDS, ExchangeState

__all__ = ["await_reply", "fetch_drafts"]


def await_reply(
    inbox: Inbox,
    state: ExchangeState,
    *,
    epoch: int,
    step: int,
    asked_before: int,
    deadline_s: float,
) -> None:
    """Hold the stream until the step's reply arrived or the deadline passed; set `state.flow`.

    Without polling the reply is there already, or it is not, and nothing waits.

    Which steps wait is `rayspec.link.patience.Patience`'s rule: after a miss some do not, twice as
    many after each further one, at most 256; a reply in time, or once that the draft has answered
    `asked_before`, ends that. So a draft that is always too slow costs the 257th part of a deadline
    per step in the long run. `asked_before` is the newest earlier step that asked for drafts, 0 for
    the first of an attachment, which starts afresh.
    """
    _await_reply[(1,)](
        inbox.arrived,
        inbox.frame,
        state.flow,
        state.counters,
        epoch,
        step,
        asked_before,
        MAGIC=D2T_MAGIC,
        POLL=inbox.polled,
        DEADLINE_NS=int(deadline_s * 1e9),
        RECEIVED=COUNTERS.index("received"),
        MISSES=COUNTERS.index("misses"),
        SKIPPED=COUNTERS.index("skipped"),
        STALE=COUNTERS.index("stale"),
        WAIT_NS=COUNTERS.index("wait_ns"),
        DRAFT_US=COUNTERS.index("draft_us"),
        LAGGING=COUNTERS.index("lagging"),
        MOST_SKIPPED=MOST_SKIPPED,
        num_warps=1,
    )


def fetch_drafts(
    drafts: torch.Tensor,
    inbox: Inbox,
    outcome: Outcome,
    state: ExchangeState,
    *,
    k_want: int,
    vocab_size: int,
    expected: bool,
    shard: int = 0,
    shards: int = 1,
    told_only: bool = False,
    q: torch.Tensor | None = None,
) -> None:
    """Write the drafts of the shard's rows into `drafts` [S, K + 1] int64, by batch position.

    With `told_only` rows are left as they are whose slots the draft was not told of.

    The last column counts them; behind them stands the last sampled token, a valid id that the
    target will mostly reject. `expected` says whether `await_reply` ran for this step. Weights of
    the drafts go into the slots' rows of `q` [S, K, 2M].
    """
    sparse = q is not None and inbox.q is not None
    k_max = drafts.shape[1] - 1
    q_words = q.shape[2] if q is not None else 1
    _fetch_drafts[(outcome.rows,)](
        drafts,
        inbox.frame,
        inbox.q if sparse else inbox.frame,
        q if sparse else inbox.frame,
        state.flow,
        state.slots,
        state.counters,
        outcome.slot_of,
        outcome.num_sampled,
        outcome.last_sampled,
        int(expected),
        k_want,
        shard,
        vocab_size,
        SHARDS=shards,
        TOLD_ONLY=told_only,
        K=k_max,
        K_PO2=triton.next_power_of_2(k_max),
        WIDTH=inbox.frame.shape[1],
        FIELDS=SLOT_FIELDS,
        STALE=COUNTERS.index("stale"),
        SPARSE=sparse,
        Q_WORDS=k_max * q_words,
        Q_PO2=triton.next_power_of_2(k_max * q_words),
        num_warps=1,
    )


@triton.jit(
    do_not_specialize=["epoch", "step", "asked_before"],
    do_not_specialize_on_alignment=["arrived", "frame"],
)
def _await_reply(  # type: ignore[no-untyped-def]
    arrived,
    frame,
    flow,
    counters,
    epoch,
    step,
    asked_before,
    MAGIC: tl.constexpr,
    POLL: tl.constexpr,
    DEADLINE_NS: tl.constexpr,
    RECEIVED: tl.constexpr,
    MISSES: tl.constexpr,
    SKIPPED: tl.constexpr,
    STALE: tl.constexpr,
    WAIT_NS: tl.constexpr,
    DRAFT_US: tl.constexpr,
    LAGGING: tl.constexpr,
    MOST_SKIPPED: tl.constexpr,
):
    one = tl.full((), 1, tl.int64)
    # One thread reads and tells the others, past the first-level cache; acquire orders the reads
    # of the frame, here and in the next kernel, behind it.
    seen = tl.atomic_add(arrived, 0, sem="acquire", scope="gpu")
    known = asked_before > 0
    left = tl.where(known, tl.load(flow + 1), 0)
    penalty = tl.maximum(tl.where(known, tl.load(flow + 2), 1), 1)
    believed = tl.where(known, tl.load(flow + 3), 0)
    if (left > 0) & (believed == 0) & (seen >= asked_before):
        left = 0
        believed = 1
    waits = left == 0
    if POLL:  # noqa: SIM102 - settled when compiled
        if waits & (seen < step):
            begun = globaltimer()
            waited = begun - begun
            while (seen < step) & (waited < DEADLINE_NS):
                seen = tl.atomic_add(arrived, 0, sem="acquire", scope="gpu")
                waited = globaltimer() - begun
            tl.atomic_add(counters + WAIT_NS, waited)
    usable = 0
    lagging = 1
    if seen >= step:
        lagging = 0
        left = 0
        believed = 0
        penalty = tl.maximum(penalty // 2, 1)
        fits = tl.load(frame, volatile=True) == MAGIC
        fits = fits & (tl.load(frame + 1, volatile=True) == epoch)
        fits = fits & (tl.load(frame + 2, volatile=True) == step)
        if fits:
            usable = 1
            tl.atomic_add(counters + RECEIVED, one)
            tl.atomic_add(counters + DRAFT_US, tl.load(frame + 4, volatile=True).to(tl.int64))
        else:
            tl.atomic_add(counters + STALE, one)
    else:
        if waits:
            tl.atomic_add(counters + MISSES, one)
            left = penalty
            penalty = tl.minimum(penalty * 2, MOST_SKIPPED)
        else:
            tl.atomic_add(counters + SKIPPED, one)
            left -= 1
    tl.store(flow, usable)
    tl.store(flow + 1, left)
    tl.store(flow + 2, penalty)
    tl.store(flow + 3, believed)
    tl.store(counters + LAGGING, lagging)


@triton.jit(
    do_not_specialize=["expected", "k_want", "shard", "vocab_size"],
    do_not_specialize_on_alignment=[
        "frame",
        "q_frame",
        "slot_of",
        "num_sampled",
        "last_sampled",
    ],
)
def _fetch_drafts(  # type: ignore[no-untyped-def]
    drafts,
    frame,
    q_frame,
    q,
    flow,
    slots,
    counters,
    slot_of,
    num_sampled,
    last_sampled,
    expected,
    k_want,
    shard,
    vocab_size,
    SHARDS: tl.constexpr,
    TOLD_ONLY: tl.constexpr,
    K: tl.constexpr,
    K_PO2: tl.constexpr,
    WIDTH: tl.constexpr,
    FIELDS: tl.constexpr,
    STALE: tl.constexpr,
    SPARSE: tl.constexpr,
    Q_WORDS: tl.constexpr,
    Q_PO2: tl.constexpr,
):
    row = tl.program_id(0)
    slot = tl.load(slot_of + row).to(tl.int32)
    state = slots + slot * FIELDS
    k = tl.load(state + 2)
    mine = slot % SHARDS == shard
    if TOLD_ONLY:
        mine = mine & (k > 0)
    if mine:
        gen = tl.load(state)
        line = frame + (slot + 1) * WIDTH
        its_gen = tl.load(line, cache_modifier=".cg")
        its_count = tl.load(line + 1, cache_modifier=".cg")
        asked = (expected != 0) & (tl.load(flow) != 0)
        asked = asked & (k > 0) & (tl.load(num_sampled + row) > 0)
        fits = asked & (its_gen == gen) & (its_count >= 0) & (its_count <= K)
        most = tl.where(fits, tl.minimum(tl.minimum(its_count, k), k_want), 0)
        position = tl.arange(0, K_PO2)
        tokens = tl.load(line + 2 + position, mask=position < most, other=0, cache_modifier=".cg")
        wrong = (position < most) & ((tokens < 0) | (tokens >= vocab_size))
        count = tl.min(tl.where(wrong, position, most), axis=0)
        filler = tl.load(last_sampled + slot).to(tl.int64)
        values = tl.where(position < count, tokens.to(tl.int64), filler)
        out = drafts + row * (K + 1)
        tl.store(out + position, values, mask=position < K)
        tl.store(out + K, count.to(tl.int64))
        tl.store(state + 3, count)
        if (asked & (fits == 0) & (its_count > 0)) | (count < most):
            tl.atomic_add(counters + STALE, tl.full((), 1, tl.int64))
        if SPARSE:  # noqa: SIM102 - settled when compiled
            if count > 0:
                entry = tl.arange(0, Q_PO2)
                base = slot.to(tl.int64) * Q_WORDS
                within = entry < Q_WORDS
                weights = tl.load(q_frame + base + entry, mask=within, cache_modifier=".cg")
                tl.store(q + base + entry, weights, mask=within)
