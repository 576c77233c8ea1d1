# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""The kernels of every matrix for 3 rows and more, on tensor cores. Read at Triton 3.7.

Inputs come in the model's dtype with the norm's weight already on them, so that a tile goes from
memory to tensor cores without passing registers. Whoever adds to the residual leaves them so, with
sums of squares for the norm. The weight is the first operand: its rows fill the large side of an
instruction, the few tokens the small one.
"""

from __future__ import annotations

import triton
import triton.language as tl

from rayspec.draft.fused.projection import ADD, PARTIAL, SILU, prefetch

__all__ = ["embed_wide", "multiply"]


@triton.jit
def embed_wide(
    ids, table, gain, residual, out, squares, M,
    HIDDEN: tl.constexpr, BLOCK: tl.constexpr, PARTS: tl.constexpr, SPREAD: tl.constexpr,
):  # fmt: skip
    """Start the residual with table[ids[m]] and leave what `multiply` takes; grid (M,).

    `squares` [PARTS, M] gets the sum of squares in its first row. Launched plainly: see `embed`.
    """
    m = tl.program_id(0)
    token = tl.load(ids + m).to(tl.int64)
    at = tl.arange(0, BLOCK)
    inside = at < HIDDEN
    x = tl.load(table + token * HIDDEN + at, mask=inside, other=0.0).to(tl.float32)
    scaled = x * tl.load(gain + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(residual + m * HIDDEN + at, x, mask=inside)
    tl.store(out + m * HIDDEN + at, scaled.to(out.dtype.element_ty), mask=inside)
    part = tl.arange(0, SPREAD)
    total = tl.where(part == 0, tl.sum(x * x, axis=0), 0.0)
    tl.store(squares + part * M + m, total, mask=part < PARTS)


@triton.jit(do_not_specialize=["M", "ROWS"])
def multiply(
    x, w, scale, squares, out, gain, normed, sums, partial, arrived, M, ROWS,
    N: tl.constexpr, K: tl.constexpr, STRIDE: tl.constexpr, EPS: tl.constexpr,
    SQUARES: tl.constexpr, SPREAD: tl.constexpr, SCALED: tl.constexpr, MODE: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, SPLIT: tl.constexpr,
    STAGES: tl.constexpr, PDL: tl.constexpr, EVICT: tl.constexpr, FRESH: tl.constexpr,
):  # fmt: skip
    """Multiply rows of x [ROWS, K] with a weight w [N, K]; grid (⌈N / BN⌉, SPLIT, ⌈M / BM⌉).

    Row m is row (m + 1) * STRIDE - 1 of x; modes and SCALED are those of `project`. Where SQUARES
    is not 0, results are normed by the sums of squares in `squares` [SQUARES, ROWS]. ADD also
    writes `normed` [M, N], the new residual times `gain` [N] in x's dtype, and sums of squares to
    `sums` [⌈N / BN⌉, M]; when it is split, the last program of a tile adds up what all left in
    `partial` [SPLIT, M, N], by the zeroed `arrived`.
    """
    tile = tl.program_id(0)
    split = tl.program_id(1)
    n = tile * BN + tl.arange(0, BN)
    m = tl.program_id(2) * BM + tl.arange(0, BM)
    DT: tl.constexpr = x.dtype.element_ty
    TILES: tl.constexpr = ((K + BK - 1) // BK + SPLIT - 1) // SPLIT
    EVEN: tl.constexpr = TILES * SPLIT * BK == K
    first = split * TILES * BK
    if PDL:
        # The weights start to arrive while the kernel that computes x still runs: some of them,
        # because all of a large matrix would push each other out of L2.
        AHEAD: tl.constexpr = min(TILES, max(STAGES, 32768 // (BN * BK)))
        prefetch(w, n, first, N, K, AHEAD * BK)
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()
    # Clamped rather than masked: what is read twice is not stored.
    row = tl.minimum((m + 1) * STRIDE - 1, ROWS - 1)
    w_row = w + tl.minimum(n, N - 1).to(tl.int64)[:, None] * K
    x_row = x + row[:, None] * K
    if SQUARES > 0:
        part = tl.arange(0, SPREAD)
        squared = tl.load(
            squares + part[:, None] * ROWS + row[None, :],
            mask=(part < SQUARES)[:, None] & (m < M)[None, :],
            other=0.0,
        )
    acc = tl.zeros((BN, BM), tl.float32)
    for i in tl.range(0, TILES, num_stages=STAGES):
        k = first + i * BK + tl.arange(0, BK)[None, :]
        if EVEN:
            wt = tl.load(w_row + k, eviction_policy=EVICT)
            xt = tl.load(x_row + k)
        else:
            wt = tl.load(w_row + k, mask=k < K, other=0.0, eviction_policy=EVICT)
            xt = tl.load(x_row + k, mask=k < K, other=0.0)
        acc = tl.dot(wt.to(DT), tl.trans(xt), acc, input_precision="ieee")
    acc = tl.trans(acc)
    if SCALED:
        acc *= tl.load(scale + n, mask=n < N, other=0.0)[None, :]
    if SQUARES > 0:
        acc *= (1.0 / tl.sqrt(tl.sum(squared, axis=0) / K + EPS))[:, None]
    inside = (m < M)[:, None] & (n < N)[None, :]
    at = m[:, None] * N + n[None, :]
    if MODE == PARTIAL:
        tl.store(out + split * M * N + at, acc, mask=inside)
    elif MODE == ADD:
        last = True
        if SPLIT > 1:
            tl.store(partial + split * M * N + at, acc, mask=inside)
            tl.debug_barrier()
            pair = tl.program_id(2) * tl.num_programs(0) + tile
            last = tl.atomic_add(arrived + pair, 1, sem="acq_rel", scope="gpu") == SPLIT - 1
            if last:
                tl.store(arrived + pair, 0)
                acc = tl.zeros((BM, BN), tl.float32)
                for other in tl.static_range(SPLIT):
                    acc += tl.load(
                        partial + other * M * N + at, mask=inside, other=0.0, cache_modifier=FRESH
                    )
        if last:
            value = acc + tl.load(out + at, mask=inside, other=0.0)
            factor = tl.load(gain + n, mask=n < N, other=0.0).to(tl.float32)[None, :]
            tl.store(out + at, value, mask=inside)
            tl.store(normed + at, (value * factor).to(DT), mask=inside)
            total = tl.sum(tl.where(inside, value * value, 0.0), axis=1)
            tl.store(sums + tile * M + m, total, mask=m < M)
    elif MODE == SILU:
        gate, up = tl.split(tl.reshape(acc, (BM, BN // 2, 2)))
        half = tile * (BN // 2) + tl.arange(0, BN // 2)
        value = gate / (1.0 + tl.exp(-gate)) * up
        tl.store(
            out + m[:, None] * (N // 2) + half[None, :],
            value.to(DT),
            mask=(m < M)[:, None] & (half < N // 2)[None, :],
        )
    else:
        tl.store(out + at, acc, mask=inside)
