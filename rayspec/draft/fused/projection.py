# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""The kernel of every matrix in a layer: few rows times a weight that is read exactly once.

Read at Triton 3.7. One or two rows are multiplied in registers; for more see `wide`. RMSNorm is
folded in: the weight of the norm scales the input on its way, and its root mean square scales the
result, so that no program waits for a reduction before its first product.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["ADD", "LOGITS", "PARTIAL", "SILU", "embed", "prefetch", "project"]

# What becomes of the sums: see `project`.
PARTIAL = tl.constexpr(0)
ADD = tl.constexpr(1)
SILU = tl.constexpr(2)
LOGITS = tl.constexpr(3)


@triton.jit
def embed(ids, table, out, HIDDEN: tl.constexpr, BLOCK: tl.constexpr):
    """out[m] = table[ids[m]] in float32; grid (rows,).

    The only kernel of a step that is launched plainly: what ran before it is complete and visible
    to all kernels of the step.
    """
    m = tl.program_id(0)
    token = tl.load(ids + m).to(tl.int64)
    at = tl.arange(0, BLOCK)
    x = tl.load(table + token * HIDDEN + at, mask=at < HIDDEN, other=0.0)
    tl.store(out + m * HIDDEN + at, x.to(tl.float32), mask=at < HIDDEN)


@triton.jit
def prefetch(w, n, first, N: tl.constexpr, K: tl.constexpr, SPAN: tl.constexpr):
    """Ask for the program's weights [BN, SPAN] in L2, one line of 128 bytes at a time."""
    LINE: tl.constexpr = 128 // (w.dtype.element_ty.primitive_bitwidth // 8)
    LINES: tl.constexpr = triton.next_power_of_2((SPAN + LINE - 1) // LINE)
    k = first + tl.arange(0, LINES) * LINE
    # Clamped rather than masked: asking twice for one line costs nothing.
    k = tl.minimum(k, tl.minimum(first + SPAN, K) - 1)
    rows = tl.minimum(n, N - 1).to(tl.int64)
    at = (w + rows[:, None] * K + k[None, :]).to(tl.int64)
    tl.inline_asm_elementwise(
        "prefetch.global.L2 [$1]; mov.u32 $0, 0;",
        "=r,l",
        [at],
        dtype=tl.int32,
        is_pure=False,
        pack=1,
    )


@triton.jit
def _fma(
    x, w, gain, row, valid, n, first,
    N: tl.constexpr, K: tl.constexpr, NORM: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, TILES: tl.constexpr,
    STAGES: tl.constexpr, EVEN: tl.constexpr, EVICT: tl.constexpr,
):  # fmt: skip
    """Return x @ w.T [BM, BN] and the sums of squares of x [BM]: one reduction at the end."""
    DT: tl.constexpr = gain.dtype.element_ty
    acc = tl.zeros((BM, BN, BK), tl.float32)
    squares = tl.zeros((BM, 1, BK), tl.float32)
    for i in tl.range(0, TILES, num_stages=STAGES):
        k = (first + i * BK + tl.arange(0, BK))[None, None, :]
        w_at = w + n[None, :, None].to(tl.int64) * K + k
        x_at = x + row[:, None, None] * K + k
        seen = valid[:, None, None]
        if EVEN:
            wt = tl.load(w_at, eviction_policy=EVICT)
            xt = tl.load(x_at, mask=seen, other=0.0).to(tl.float32)
        else:
            inside = (n < N)[None, :, None] & (k < K)
            wt = tl.load(w_at, mask=inside, other=0.0, eviction_policy=EVICT)
            xt = tl.load(x_at, mask=seen & (k < K), other=0.0).to(tl.float32)
        if NORM:
            squares += xt * xt
            xt = xt * tl.load(gain + k, mask=k < K, other=0.0).to(tl.float32)
            # Rounded as `wide` has it, so that both paths compute one function.
            xt = xt.to(DT).to(tl.float32)
        acc += xt * wt.to(tl.float32)
    return tl.sum(acc, axis=2), tl.sum(tl.reshape(squares, (BM, BK)), axis=1)


@triton.jit(do_not_specialize=["M"])
def project(
    x, w, gain, scale, out, squares, M,
    N: tl.constexpr, K: tl.constexpr, STRIDE: tl.constexpr, EPS: tl.constexpr,
    NORM: tl.constexpr, SCALED: tl.constexpr, MODE: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, SPLIT: tl.constexpr,
    STAGES: tl.constexpr, PDL: tl.constexpr, EVICT: tl.constexpr,
):  # fmt: skip
    """Multiply rows x [·, K] with a weight w [N, K]; grid (⌈N / BN⌉, SPLIT, ⌈M / BM⌉).

    Row m is row (m + 1) * STRIDE - 1 of x: with a stride, each sequence's newest token. NORM takes
    x as the float32 residual and `gain` [K] as the norm's weight; without it x has gain's dtype.
    SCALED multiplies output n by scale[n]. MODE says where the sums [M, N] go:
    PARTIAL to out[split] and the sums of squares to squares[split], all float32, not normed yet;
    ADD onto the float32 residual `out`, atomically when the sum is split;
    SILU as silu(even) * odd to out [M, N / 2]; LOGITS to out [M, N].
    """
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    split = tl.program_id(1)
    m = tl.program_id(2) * BM + tl.arange(0, BM)
    valid = m < M
    TILES: tl.constexpr = ((K + BK - 1) // BK + SPLIT - 1) // SPLIT
    EVEN: tl.constexpr = (N % BN == 0) and (TILES * SPLIT * BK == K)
    first = split * TILES * BK
    if PDL:
        # The weights start to arrive while the kernel that computes x still runs.
        prefetch(w, n, first, N, K, TILES * BK)
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()
    row = (m + 1) * STRIDE - 1
    acc, sums = _fma(
        x, w, gain, row, valid, n, first, N, K, NORM, BM, BN, BK, TILES, STAGES, EVEN, EVICT
    )
    if SCALED:
        acc *= tl.load(scale + n, mask=n < N, other=0.0)[None, :]
    if NORM and MODE != PARTIAL:
        acc *= (1.0 / tl.sqrt(sums / K + EPS))[:, None]
    inside = valid[:, None] & (n < N)[None, :]
    at = m[:, None] * N + n[None, :]
    if MODE == PARTIAL:
        tl.store(out + split * M * N + at, acc, mask=inside)
        if tl.program_id(0) == 0:
            tl.store(squares + split * M + m, sums, mask=valid)
    elif MODE == ADD:
        if SPLIT == 1:
            tl.store(out + at, acc + tl.load(out + at, mask=inside, other=0.0), mask=inside)
        else:
            tl.atomic_add(out + at, acc, mask=inside, sem="relaxed")
    elif MODE == SILU:
        gate, up = tl.split(tl.reshape(acc, (BM, BN // 2, 2)))
        half = tl.program_id(0) * (BN // 2) + tl.arange(0, BN // 2)
        value = gate / (1.0 + tl.exp(-gate)) * up
        tl.store(
            out + m[:, None] * (N // 2) + half[None, :],
            value.to(out.dtype.element_ty),
            mask=valid[:, None] & (half < N // 2)[None, :],
        )
    else:
        tl.store(out + at, acc, mask=inside)
