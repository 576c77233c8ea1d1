"""Kernels that choose each place's next draft and lead it into the next pass.

Greedy drafts take the largest logit, the lowest token column among equals, as vLLM does. Sampled
ones are drawn from exactly the M most likely tokens, which are given out with their log-weights.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["choose_greedy", "choose_sparse", "partial_largest", "partial_top"]

_Q = tl.constexpr(2)
_K_MAX = tl.constexpr(7)
_GREEDY = tl.constexpr(10)


@triton.jit
def partial_largest(  # type: ignore[no-untyped-def]
    logits, values, columns, stride, vocab, CHUNK: tl.constexpr
):
    """Reduce a chunk of one row of logits to its largest value and that one's column."""
    b = tl.program_id(0)
    part = tl.program_id(1)
    c = part * CHUNK + tl.arange(0, CHUNK)
    x = tl.load(logits + b.to(tl.int64) * stride + c, mask=c < vocab, other=-float("inf"))
    x = x.to(tl.float32)
    x = tl.where(x == x, x, -float("inf"))  # NaN
    most = tl.max(x, 0)
    column = tl.min(tl.where((x == most) & (c < vocab), c, vocab - 1), 0)
    at = b * tl.num_programs(1) + part
    tl.store(values + at, most)
    tl.store(columns + at, column)


@triton.jit
def partial_top(  # type: ignore[no-untyped-def]
    order,
    logits,
    keys,
    batch_row,
    temperature,
    stride,
    vocab,
    CHUNK: tl.constexpr,
    M: tl.constexpr,
):
    """Reduce a chunk of one row to its M largest logits ÷ temperature, as sortable keys."""
    b = tl.program_id(0)
    part = tl.program_id(1)
    t = tl.load(temperature + tl.load(batch_row + b))
    t = tl.where((tl.load(order + _GREEDY) != 0) | (t <= 0.0), 1.0, t)
    c = part * CHUNK + tl.arange(0, CHUNK)
    x = tl.load(logits + b.to(tl.int64) * stride + c, mask=c < vocab, other=-float("inf"))
    x = x.to(tl.float32) / t
    # A NaN compares with nothing; as the least likely token it does no harm.
    x = tl.where(x == x, x, -float("inf"))
    bits = (x + 0.0).to(tl.int32, bitcast=True)
    ordered = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    # The column is inverted, so that among equals the lowest sorts first.
    key = (ordered.to(tl.int64) << 32) | (0x7FFFFFFF - c).to(tl.int64)
    top = tl.topk(key, M)
    at = (b * tl.num_programs(1) + part) * M
    tl.store(keys + at + tl.arange(0, M), top)


@triton.jit(do_not_specialize=["step"])
def choose_greedy(  # type: ignore[no-untyped-def]
    order,
    values,
    columns,
    token_ids,
    batch_row,
    batch_k,
    batch_len,
    drafted,
    ids1,
    positions1,
    lens1,
    table1,
    slots1,
    step,
    parts,
    table1_stride,
    HAS_IDS: tl.constexpr,
    PARTS_P: tl.constexpr,
    K: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
):
    """Take the largest of all chunks as draft number `step`."""
    b = tl.program_id(0)
    p = tl.arange(0, PARTS_P)
    x = tl.load(values + b * parts + p, mask=p < parts, other=-float("inf"))
    most = tl.max(x, 0)
    # Chunks are in order of their columns: the first that has it, has it at the lowest.
    first = tl.min(tl.where((x == most) & (p < parts), p, parts - 1), 0)
    token = tl.load(columns + b * parts + first)
    if HAS_IDS:
        token = tl.load(token_ids + token)
    _lead_on(
        b, token, step, batch_row, batch_k, batch_len, drafted, ids1, positions1, lens1, table1,
        slots1, table1_stride, K, BLOCK_SIZE,
    )  # fmt: skip


@triton.jit(do_not_specialize=["step"])
def choose_sparse(  # type: ignore[no-untyped-def]
    order,
    keys,
    token_ids,
    temperature,
    seed,
    batch_row,
    batch_slot,
    batch_k,
    batch_len,
    drafted,
    ids1,
    positions1,
    lens1,
    table1,
    slots1,
    step,
    parts,
    vocab,
    table1_stride,
    HAS_IDS: tl.constexpr,
    PARTS_P: tl.constexpr,
    M: tl.constexpr,
    K: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
):
    """Draw draft number `step` from the M most likely tokens, and give these out.

    The random number depends on the sequence's seed, the position and the step alone.
    """
    b = tl.program_id(0)
    row = tl.load(batch_row + b)
    size = tl.load(batch_len + b)
    e = tl.arange(0, PARTS_P * M)
    least = -9223372036854775807
    candidates = tl.load(keys + b * parts * M + e, mask=e < parts * M, other=least)
    top = tl.topk(candidates, M)  # [M], most likely first
    ordered = (top >> 32).to(tl.int32)
    x = tl.where(ordered < 0, ordered ^ 0x7FFFFFFF, ordered).to(tl.float32, bitcast=True)
    column = 0x7FFFFFFF - top.to(tl.int32)  # the lower half
    there = (column >= 0) & (column < vocab)
    x = tl.where(there, x, -float("inf"))
    column = tl.where(there, column, 0)
    m = tl.arange(0, M)

    t = tl.load(temperature + row)
    greedy = (tl.load(order + _GREEDY) != 0) | (t <= 0.0)
    x = tl.where(m < tl.where(greedy, 1, M), x, -float("inf"))
    most = tl.max(x, 0)
    # A row of nothing but -inf still has to have a first token.
    x = tl.where(m == tl.where(most == -float("inf"), 0, -1), 0.0, x)
    most = tl.where(most == -float("inf"), 0.0, most)
    weight = tl.exp(x - most)
    total = tl.sum(weight, 0)
    log_weight = x - most - tl.log(total)
    one = tl.zeros([1], tl.int32)
    counter = (size + step) * 64 + step + one
    u = tl.sum(tl.rand(tl.load(seed + row), counter), 0)
    running = tl.cumsum(weight, 0)
    # The last one with any weight takes what rounding leaves over.
    last = tl.max(tl.where(weight > 0.0, m, 0), 0)
    chosen = tl.minimum(tl.sum((running <= u * total).to(tl.int32), 0), last)

    ids = column
    if HAS_IDS:
        ids = tl.load(token_ids + column)
    token = tl.sum(tl.where(m == chosen, ids, 0), 0)
    address = tl.load(order + _Q)
    slot = tl.load(batch_slot + b)
    told = (address != 0) & (slot >= 0) & (step < tl.load(order + _K_MAX))
    line = address.to(tl.pointer_type(tl.int32))
    line += (slot.to(tl.int64) * tl.load(order + _K_MAX) + step) * (2 * M)
    words = tl.where(told, M, 0)
    tl.store(line + m, ids, mask=m < words)
    tl.store(line + M + m, log_weight.to(tl.int32, bitcast=True), mask=m < words)
    _lead_on(
        b, token, step, batch_row, batch_k, batch_len, drafted, ids1, positions1, lens1, table1,
        slots1, table1_stride, K, BLOCK_SIZE,
    )  # fmt: skip


@triton.jit
def _lead_on(  # type: ignore[no-untyped-def]
    b,
    token,
    step,
    batch_row,
    batch_k,
    batch_len,
    drafted,
    ids1,
    positions1,
    lens1,
    table1,
    slots1,
    table1_stride,
    K: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
):
    """Keep a draft, and make it the input of the next pass, one token wide.

    A place that has all its drafts works on into the spare block, at the length of one token.
    """
    k = tl.load(batch_k + b)
    row = tl.load(batch_row + b).to(tl.int64)
    tl.store(drafted + row * K + step, token, mask=step < k)
    goes_on = step + 1 < k
    position = tl.where(goes_on, tl.load(batch_len + b) + step, 0)
    block = tl.load(table1 + b * table1_stride + position // BLOCK_SIZE).to(tl.int64)
    place = tl.where(goes_on, block * BLOCK_SIZE + position % BLOCK_SIZE, b % BLOCK_SIZE)
    tl.store(ids1 + b, token)
    tl.store(positions1 + b, position.to(tl.int64))
    tl.store(lens1 + b, position + 1)
    tl.store(slots1 + b, place)
