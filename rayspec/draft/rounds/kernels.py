"""Kernels of a round around the model's forwards: take up a frame, fill a batch, pack the reply.

Everything is read through the order, so one captured round serves the frames of every target. A
row is the place of a sequence that has a KV cache; the slot map says which row a slot has.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["apply_frame", "begin_batch", "begin_catch_up", "pack_reply", "patch"]

# As in layout.Order; a kernel reads global constants only if they are constexpr.
_FRAME = tl.constexpr(0)
_REPLY = tl.constexpr(1)
_BASE = tl.constexpr(3)
_SLOTS = tl.constexpr(4)
_WIDTH = tl.constexpr(5)
_K_WANT = tl.constexpr(6)
_K_MAX = tl.constexpr(7)
_MAX_LEN = tl.constexpr(8)
_VOCAB = tl.constexpr(9)
_T_DRAFT_US = tl.constexpr(11)
_MAGIC = tl.constexpr(12)


@triton.jit(do_not_specialize=["count"])
def patch(words, pairs, count, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Store `count` pairs (place, value) from `pairs` [2, count] into `words`."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    here = i < count
    place = tl.load(pairs + i, mask=here, other=0)
    tl.store(words + place, tl.load(pairs + count + i, mask=here, other=0), mask=here)


@triton.jit
def apply_frame(  # type: ignore[no-untyped-def]
    order,
    slot_map,
    gen,
    length,
    kv_len,
    k_cap,
    limit,
    n_drafted,
    drafted,
    tokens,
    want,
    given,
    token_stride,
    K: tl.constexpr,
    KP: tl.constexpr,
):
    """Append a slot's new tokens; `want` becomes the drafts it can have in this round.

    KV of drafts that the target took stays; at most all but the last draft have any.
    """
    i = tl.program_id(0)
    live = i < tl.load(order + _SLOTS).to(tl.int32)
    frame = tl.load(order + _FRAME).to(tl.pointer_type(tl.int32))
    k_max = tl.load(order + _K_MAX).to(tl.int32)
    max_len = tl.load(order + _MAX_LEN).to(tl.int32)
    vocab = tl.load(order + _VOCAB).to(tl.int32)
    line = frame + (i + 1) * tl.load(order + _WIDTH).to(tl.int32)
    n = tl.load(line + 1, mask=live, other=-1)
    row = tl.load(slot_map + tl.load(order + _BASE) + i, mask=live, other=-1)
    told = live & (n >= 0) & (n <= k_max + 1) & (row >= 0)
    row = tl.where(told, row, 0).to(tl.int64)
    told = told & (tl.load(gen + row) == tl.load(line, mask=live, other=-1))

    j = tl.arange(0, KP)
    count = tl.where(told, n, 0)
    new = tl.load(line + 2 + j, mask=j < count, other=0)
    old = tl.load(length + row)
    foreign = tl.max(((new < 0) | (new >= vocab)).to(tl.int32), 0) > 0
    dead = told & (foreign | (old + n > max_len))
    tl.store(gen + row, -1, mask=dead)
    told = told & (dead == 0)
    count = tl.where(told, n, 0)
    tl.store(tokens + row * token_stride + old + j, new, mask=j < count)

    kv = tl.load(kv_len + row)
    draft = tl.load(drafted + row * K + j, mask=j < K, other=-1)
    differs = (j >= n) | (j >= tl.load(n_drafted + row) - 1) | (new != draft)
    matched = tl.min(tl.where(differs, j, KP), 0)
    grown = told & (n > 0)
    kv = tl.where(grown & (kv == old), kv + matched, kv)
    tl.store(kv_len + row, kv, mask=grown)
    tl.store(n_drafted + row, 0, mask=grown)
    size = old + n
    tl.store(length + row, size, mask=told)

    room = tl.minimum(max_len - size, tl.load(limit + row) - size + 1)
    most = tl.minimum(tl.minimum(tl.load(k_cap + row), k_max), room)
    most = tl.minimum(most, tl.load(order + _K_WANT).to(tl.int32))
    joins = told & (size >= 2) & (size - kv <= 2)
    tl.store(want + i, tl.where(joins, tl.maximum(most, 0), 0))
    tl.store(given + i, 0)


@triton.jit(do_not_specialize=["steps"])
def begin_batch(  # type: ignore[no-untyped-def]
    order,
    slot_map,
    length,
    kv_len,
    n_drafted,
    tokens,
    tables,
    want,
    given,
    batch_row,
    batch_slot,
    batch_k,
    batch_len,
    ids2,
    positions2,
    lens2,
    table2,
    slots2,
    table1,
    token_stride,
    table_stride,
    table2_stride,
    table1_stride,
    spare_row,
    steps,
    SLOTS: tl.constexpr,
    SLOTS_P: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    MAX_BLOCKS: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """Give a place of the batch to the slot of its rank, and fill the first pass, two tokens wide.

    Places without a slot work on the spare row, whose only block belongs to nobody.
    """
    b = tl.program_id(0)
    s = tl.arange(0, SLOTS_P)
    wanted = tl.load(want + s, mask=s < SLOTS, other=0)
    rank = tl.cumsum((wanted > 0).to(tl.int32), 0) - 1
    mine = (wanted > 0) & (rank == b)
    slot = tl.max(tl.where(mine, s, -1), 0)
    k = tl.minimum(tl.sum(tl.where(mine, wanted, 0), 0), steps)
    used = slot >= 0
    row = tl.load(slot_map + tl.load(order + _BASE) + slot, mask=used, other=spare_row)
    row = row.to(tl.int64)
    size = tl.load(length + row)
    tl.store(given + slot, k, mask=used)
    tl.store(kv_len + row, size, mask=used)
    tl.store(n_drafted + row, k, mask=used)
    tl.store(batch_row + b, row.to(tl.int32))
    tl.store(batch_slot + b, slot)
    tl.store(batch_k + b, k)
    tl.store(batch_len + b, size)

    t = tl.arange(0, 2)
    position = size - 2 + t
    tl.store(ids2 + b * 2 + t, tl.load(tokens + row * token_stride + position))
    tl.store(positions2 + b * 2 + t, position.to(tl.int64))
    tl.store(lens2 + b, size)
    block = tl.load(tables + row * table_stride + position // BLOCK_SIZE).to(tl.int64)
    tl.store(slots2 + b * 2 + t, block * BLOCK_SIZE + position % BLOCK_SIZE)
    for start in range(0, MAX_BLOCKS, CHUNK):
        c = start + tl.arange(0, CHUNK)
        entry = tl.load(tables + row * table_stride + c, mask=c < MAX_BLOCKS, other=0)
        tl.store(table2 + b * table2_stride + c, entry, mask=c < MAX_BLOCKS)
        tl.store(table1 + b * table1_stride + c, entry, mask=c < MAX_BLOCKS)


@triton.jit(do_not_specialize=["spare_row"])
def begin_catch_up(  # type: ignore[no-untyped-def]
    rows,
    gen,
    length,
    kv_len,
    limit,
    tokens,
    tables,
    ids,
    positions,
    lens,
    table,
    slots,
    token_stride,
    table_stride,
    out_stride,
    spare_row,
    BLOCK_SIZE: tl.constexpr,
    MAX_BLOCKS: tl.constexpr,
    CHUNK: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Fill a pass with the newest `WIDTH` tokens of `rows`, which then have all their KV.

    What has its KV already is written again. A row that lacks more, or is -1, leaves its place to
    the spare row.
    """
    b = tl.program_id(0)
    row = tl.load(rows + b)
    known = row >= 0
    row = tl.where(known, row, spare_row).to(tl.int64)
    size = tl.load(length + row)
    known = known & (tl.load(gen + row) >= 0) & (size >= WIDTH)
    known = known & (size - tl.load(kv_len + row) <= WIDTH) & (size <= tl.load(limit + row))
    row = tl.where(known, row, spare_row).to(tl.int64)
    size = tl.where(known, size, WIDTH)
    tl.store(kv_len + row, size, mask=known)

    t = tl.arange(0, WIDTH)
    position = size - WIDTH + t
    tl.store(ids + b * WIDTH + t, tl.load(tokens + row * token_stride + position))
    tl.store(positions + b * WIDTH + t, position.to(tl.int64))
    tl.store(lens + b, size)
    block = tl.load(tables + row * table_stride + position // BLOCK_SIZE).to(tl.int64)
    tl.store(slots + b * WIDTH + t, block * BLOCK_SIZE + position % BLOCK_SIZE)
    for start in range(0, MAX_BLOCKS, CHUNK):
        c = start + tl.arange(0, CHUNK)
        entry = tl.load(tables + row * table_stride + c, mask=c < MAX_BLOCKS, other=0)
        tl.store(table + b * out_stride + c, entry, mask=c < MAX_BLOCKS)


@triton.jit
def pack_reply(  # type: ignore[no-untyped-def]
    order,
    slot_map,
    gen,
    length,
    kv_len,
    drafted,
    given,
    report,
    K: tl.constexpr,
    WP: tl.constexpr,
):
    """Write a line of the reply frame, if there is to be one, and what the host is to know."""
    r = tl.program_id(0)
    slots = tl.load(order + _SLOTS).to(tl.int32)
    width = tl.load(order + _WIDTH).to(tl.int32)
    frame = tl.load(order + _FRAME).to(tl.pointer_type(tl.int32))
    address = tl.load(order + _REPLY)
    reply = address.to(tl.pointer_type(tl.int32))
    c = tl.arange(0, WP)
    i = r - 1
    is_row = (i >= 0) & (i < slots)
    told_gen = tl.load(frame + r * width, mask=r <= slots, other=-1)
    n = tl.load(frame + r * width + 1, mask=is_row, other=-1)
    row = tl.load(slot_map + tl.load(order + _BASE) + i, mask=is_row, other=-1)
    held = is_row & (row >= 0)
    row = tl.where(held, row, 0).to(tl.int64)
    count = tl.load(given + i, mask=is_row, other=0)

    draft = tl.load(drafted + row * K + c - 2, mask=(c >= 2) & (c - 2 < count), other=-1)
    line = tl.where(c == 0, told_gen, tl.where(c == 1, count, draft))
    line = tl.where(n >= 0, line, -1)
    # Header: magic, epoch, step, active rows, time of a draft; the others stay -1.
    word = tl.load(frame + c, mask=c < 8, other=-1)
    active = tl.load(frame + 4)
    magic = tl.load(order + _MAGIC).to(tl.int32)
    took = tl.load(order + _T_DRAFT_US).to(tl.int32)
    header = tl.where(c == 0, magic, tl.where((c == 1) | (c == 2), word, -1))
    header = tl.where(c == 3, active, tl.where(c == 4, took, header))
    line = tl.where(r == 0, header, line)
    words = tl.where((address != 0) & (r <= slots), width, 0)
    tl.store(reply + r * width + c, line, mask=c < words)

    known = tl.where(held, tl.load(gen + row), -1)
    tl.store(report + i * 4 + 0, known, mask=is_row)
    tl.store(report + i * 4 + 1, tl.load(length + row), mask=held)
    tl.store(report + i * 4 + 2, tl.load(kv_len + row), mask=held)
    tl.store(report + i * 4 + 3, count, mask=is_row)
