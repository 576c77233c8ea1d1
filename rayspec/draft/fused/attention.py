# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""The kernel between the projections: norms, rotation, KV write and attention over paged KV.

Read at Triton 3.7. A row's context is split over programs; the last one to finish combines them,
so that a row costs one launch however long it is.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["attend"]


@triton.jit
def _inverse(
    squares, m, M,
    HIDDEN: tl.constexpr, SQUARES: tl.constexpr, SPREAD: tl.constexpr, EPS: tl.constexpr,
):  # fmt: skip
    """Return what norms rows m, by the parts of their sums of squares."""
    part = tl.arange(0, SPREAD)[:, None]
    total = tl.load(squares + part * M + m[None, :], mask=part < SQUARES, other=0.0)
    return 1.0 / tl.sqrt(tl.sum(total, axis=0) / HIDDEN + EPS)


@triton.jit
def _half(
    qkv, bias, m, valid, column, M, inverse,
    N: tl.constexpr, PARTS: tl.constexpr, BIAS: tl.constexpr,
):  # fmt: skip
    """Return columns of the projection [R, C]: partial sums added up, normed, biased."""
    x = tl.zeros(column.shape, tl.float32)
    for part in tl.static_range(PARTS):
        x += tl.load(qkv + part * M * N + m[:, None] * N + column, mask=valid[:, None], other=0.0)
    x *= inverse[:, None]
    if BIAS:
        x += tl.load(bias + column).to(tl.float32)
    return x


@triton.jit
def _rotated(
    qkv, bias, gain, c, s, m, valid, head, M, inverse,
    N: tl.constexpr, PARTS: tl.constexpr, BIAS: tl.constexpr, NORM: tl.constexpr,
    EPS: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """Return both halves [R, D / 2] of heads, normed and rotated by cosines c and sines s."""
    H: tl.constexpr = D // 2
    d = tl.arange(0, H)[None, :]
    base = head[:, None] * D + d
    a = _half(qkv, bias, m, valid, base, M, inverse, N, PARTS, BIAS)
    b = _half(qkv, bias, m, valid, base + H, M, inverse, N, PARTS, BIAS)
    if NORM:
        mean = (tl.sum(a * a, axis=1) + tl.sum(b * b, axis=1)) / D
        scale = (1.0 / tl.sqrt(mean + EPS))[:, None]
        a = a * scale * tl.load(gain + d).to(tl.float32)
        b = b * scale * tl.load(gain + H + d).to(tl.float32)
    return a * c - b * s, b * c + a * s


@triton.jit
def _prefetch(
    keys, values, table, start, end, kv_head,
    STRIDES: tl.constexpr, BLOCK: tl.constexpr, BT: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """Ask for one turn of the context in L2, one line of 128 bytes at a time."""
    LINE: tl.constexpr = 128 // (keys.dtype.element_ty.primitive_bitwidth // 8)
    # Clamped rather than masked: asking twice for one line costs nothing.
    t = tl.minimum(start + tl.arange(0, BT), end - 1)
    block = tl.load(table + t // BLOCK).to(tl.int64)
    cell = block * STRIDES[0] + kv_head * STRIDES[1] + (t % BLOCK) * STRIDES[2]
    line = cell[:, None] + (tl.arange(0, D // LINE) * LINE)[None, :]
    tl.inline_asm_elementwise(
        "prefetch.global.L2 [$1]; prefetch.global.L2 [$2]; mov.u32 $0, 0;",
        "=r,l,l",
        [(keys + line).to(tl.int64), (values + line).to(tl.int64)],
        dtype=tl.int32,
        is_pure=False,
        pack=1,
    )


@triton.jit(do_not_specialize=["M", "table_stride"])
def attend(
    qkv, squares, bias, q_gain, k_gain, cos, sin, keys, values,
    positions, seq_lens, block_table, table_stride, slot_mapping,
    partial, scores, arrived, out, M,
    HIDDEN: tl.constexpr, HEADS: tl.constexpr, KV_HEADS: tl.constexpr, D: tl.constexpr,
    STRIDES: tl.constexpr, WIDTH: tl.constexpr, BQ: tl.constexpr, BT: tl.constexpr,
    BLOCK: tl.constexpr, SPLITS: tl.constexpr, PARTS: tl.constexpr, SQUARES: tl.constexpr,
    SPREAD: tl.constexpr, BIAS: tl.constexpr, NORM: tl.constexpr, EPS: tl.constexpr,
    SCALE: tl.constexpr, PDL: tl.constexpr, FRESH: tl.constexpr,
):  # fmt: skip
    """Attend from WIDTH new tokens of each row; grid (rows, KV_HEADS, SPLITS).

    `qkv` [PARTS, M, (HEADS + 2 KV_HEADS) D] is what its projection left, and `squares`
    [SQUARES, M] the sums of squares of what was projected.
    `keys` and `values` [blocks, KV_HEADS, BLOCK, D] take the new tokens' KV; their first three
    dimensions lie STRIDES elements apart. `out` [M, HEADS D] gets the result. `partial`
    [rows, KV_HEADS, SPLITS, BQ, D], `scores` [·, 2, BQ] and the zeroed `arrived` [rows, KV_HEADS]
    are scratch. FRESH is the cache modifier of loads that must not find what an earlier kernel
    left in L1.
    """
    row = tl.program_id(0)
    kv_head = tl.program_id(1)
    split = tl.program_id(2)
    G: tl.constexpr = HEADS // KV_HEADS
    H: tl.constexpr = D // 2
    N: tl.constexpr = (HEADS + 2 * KV_HEADS) * D
    # Until the wait below only what is complete before the whole step is read: see `embed`.
    length = tl.load(seq_lens + row)
    chunk = tl.cdiv(tl.cdiv(length, SPLITS), BT) * BT
    begin = split * chunk
    end = tl.minimum(begin + chunk, length)
    if begin >= length:
        return
    DT: tl.constexpr = keys.dtype.element_ty
    d = tl.arange(0, D)
    half = tl.arange(0, H)

    # Queries: row q of the tile is head q % G of the group and new token q // G.
    q = tl.arange(0, BQ)
    token = tl.minimum(q // G, WIDTH - 1)
    valid = q < WIDTH * G
    m = row * WIDTH + token
    turn = tl.load(positions + m)[:, None] * H + half[None, :]
    cq, sq = tl.load(cos + turn), tl.load(sin + turn)
    # New tokens of which this program writes KV: those in its part of the context.
    j = tl.arange(0, WIDTH)
    mj = row * WIDTH + j
    at = length - WIDTH + j
    mine = (at >= begin) & (at < end)
    turn = tl.load(positions + mj)[:, None] * H + half[None, :]
    cj, sj = tl.load(cos + turn), tl.load(sin + turn)
    slot = tl.load(slot_mapping + mj)
    if PDL:
        for start in range(begin, end, BT):
            _prefetch(
                keys, values, block_table + row * table_stride, start, end, kv_head,
                STRIDES, BLOCK, BT, D,
            )  # fmt: skip
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()

    inverse = _inverse(squares, m, M, HIDDEN, SQUARES, SPREAD, EPS)
    q1, q2 = _rotated(
        qkv, bias, q_gain, cq, sq, m, valid, kv_head * G + q % G, M, inverse,
        N, PARTS, BIAS, NORM, EPS, D,
    )  # fmt: skip
    q1 = (q1 * (SCALE * 1.4426950408889634)).to(DT)
    q2 = (q2 * (SCALE * 1.4426950408889634)).to(DT)

    inverse = _inverse(squares, mj, M, HIDDEN, SQUARES, SPREAD, EPS)
    k1, k2 = _rotated(
        qkv, bias, k_gain, cj, sj, mj, mine, HEADS + kv_head + tl.zeros_like(j), M, inverse,
        N, PARTS, BIAS, NORM, EPS, D,
    )  # fmt: skip
    v = _half(
        qkv, bias, mj, mine, (HEADS + KV_HEADS + kv_head) * D + tl.zeros_like(j)[:, None] + d[None],
        M, inverse, N, PARTS, BIAS,
    )  # fmt: skip
    # int64, as slots are
    cell = (slot // BLOCK) * STRIDES[0] + kv_head * STRIDES[1] + (slot % BLOCK) * STRIDES[2]
    mine = (mine & (slot >= 0))[:, None]
    tl.store(keys + cell[:, None] + half[None, :], k1.to(DT), mask=mine)
    tl.store(keys + cell[:, None] + H + half[None, :], k2.to(DT), mask=mine)
    tl.store(values + cell[:, None] + d[None, :], v.to(DT), mask=mine)
    # Threads of this program read below what others of it have just written.
    tl.debug_barrier()

    best = tl.full((BQ,), -float("inf"), tl.float32)
    weight = tl.zeros((BQ,), tl.float32)
    acc = tl.zeros((BQ, D), tl.float32)
    for start in range(begin, end, BT):
        t = start + tl.arange(0, BT)
        inside = t < end
        block = tl.load(block_table + row * table_stride + t // BLOCK, mask=inside, other=0)
        there = block.to(tl.int64) * STRIDES[0] + kv_head * STRIDES[1] + (t % BLOCK) * STRIDES[2]
        at_k = keys + there[None, :] + half[:, None]
        kt1 = tl.load(at_k, mask=inside[None, :], other=0.0)  # [D / 2, BT]
        kt2 = tl.load(at_k + H, mask=inside[None, :], other=0.0)
        vt = tl.load(values + there[:, None] + d[None, :], mask=inside[:, None], other=0.0)
        s = tl.dot(q1, kt1, input_precision="ieee")
        s = tl.dot(q2, kt2, s, input_precision="ieee")
        seen = t[None, :] <= (length - WIDTH + token)[:, None]
        s = tl.where(seen & inside[None, :], s, -float("inf"))
        top = tl.maximum(best, tl.max(s, axis=1))
        # A part that holds only the newer of two tokens shows nothing to the older one.
        floor = tl.where(top == -float("inf"), 0.0, top)
        p = tl.exp2(s - floor[:, None])
        shrink = tl.exp2(best - floor)
        weight = weight * shrink + tl.sum(p, axis=1)
        acc = tl.dot(p.to(DT), vt, acc * shrink[:, None], input_precision="ieee")
        best = top

    target = out + m[:, None] * (HEADS * D) + (kv_head * G + q % G)[:, None] * D + d[None, :]
    active = tl.cdiv(length, chunk)
    if active == 1:
        tl.store(target, (acc / weight[:, None]).to(DT), mask=valid[:, None])
    else:
        pair = row * KV_HEADS + kv_head
        mine_at = pair * SPLITS + split
        tl.store(partial + (mine_at * BQ + q)[:, None] * D + d[None, :], acc)
        tl.store(scores + mine_at * 2 * BQ + q, best)
        tl.store(scores + mine_at * 2 * BQ + BQ + q, weight)
        tl.debug_barrier()
        before = tl.atomic_add(arrived + pair, 1, sem="acq_rel", scope="gpu")
        if before == active - 1:
            best = tl.full((BQ,), -float("inf"), tl.float32)
            weight = tl.zeros((BQ,), tl.float32)
            acc = tl.zeros((BQ, D), tl.float32)
            for other in range(0, active):
                other_at = pair * SPLITS + other
                top = tl.load(scores + other_at * 2 * BQ + q, cache_modifier=FRESH)
                share = tl.load(scores + other_at * 2 * BQ + BQ + q, cache_modifier=FRESH)
                part_at = partial + (other_at * BQ + q)[:, None] * D + d[None, :]
                theirs = tl.load(part_at, cache_modifier=FRESH)
                high = tl.maximum(best, top)
                # The first part always shows its first token to every query.
                old, new = tl.exp2(best - high), tl.exp2(top - high)
                weight = weight * old + share * new
                acc = acc * old[:, None] + theirs * new[:, None]
                best = high
            tl.store(target, (acc / weight[:, None]).to(DT), mask=valid[:, None])
            tl.store(arrived + pair, 0)
