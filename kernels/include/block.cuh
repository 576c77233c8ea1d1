// Reductions over a block in a fixed order: the same input gives the same bits.
#pragma once

#include "device.cuh"

#ifndef RAYSPEC_THREADS
#define RAYSPEC_THREADS 256
#endif
constexpr int kThreads = RAYSPEC_THREADS;
constexpr int kWarps = kThreads / 32;

struct Best {
    float score;
    u32 index;
};

struct Larger {
    RS_DEVICE float operator()(float a, float b) const { return fmaxf(a, b); }
    RS_DEVICE u32 operator()(u32 a, u32 b) const { return a > b ? a : b; }
};
struct Smaller {
    RS_DEVICE u32 operator()(u32 a, u32 b) const { return a < b ? a : b; }
};
struct Plus {
    RS_DEVICE float operator()(float a, float b) const { return a + b; }
    RS_DEVICE double operator()(double a, double b) const { return a + b; }
    RS_DEVICE u64 operator()(u64 a, u64 b) const { return a + b; }
};
// The lower index wins a tie.
struct Better {
    RS_DEVICE Best operator()(Best a, Best b) const {
        return b.score > a.score || (b.score == a.score && b.index < a.index) ? b : a;
    }
};

// What a block's reductions pass from warp to warp.
struct alignas(8) Scratch {
    u64 slots[kWarps];

    template <typename V>
    RS_DEVICE V* of() {
        static_assert(sizeof(V) <= sizeof(u64), "a slot holds eight bytes");
        return reinterpret_cast<V*>(slots);
    }
};

template <typename V>
RS_DEVICE V shuffle_xor(V value, int mask) {
    return __shfl_xor_sync(kAll, value, mask);
}
RS_DEVICE Best shuffle_xor(Best value, int mask) {
    return {__shfl_xor_sync(kAll, value.score, mask), __shfl_xor_sync(kAll, value.index, mask)};
}

template <typename V, typename Op>
RS_DEVICE V warp_reduce(V value, Op op) {
#pragma unroll
    for (int mask = 16; mask > 0; mask /= 2) value = op(value, shuffle_xor(value, mask));
    return value;
}

// Every thread gets the result; every warp's part counts once, whatever the number of warps.
template <typename V, typename Op>
RS_DEVICE V block_reduce(V value, Op op, Scratch& scratch) {
    V* slots = scratch.of<V>();
    value = warp_reduce(value, op);
    __syncthreads();  // Whoever used the scratch before has read it.
    if (threadIdx.x % 32 == 0) slots[threadIdx.x / 32] = value;
    __syncthreads();
    value = slots[threadIdx.x % kWarps];
#pragma unroll
    for (int mask = kWarps / 2; mask > 0; mask /= 2) value = op(value, shuffle_xor(value, mask));
    return value;
}

// The sum over all threads before this one.
RS_DEVICE u64 block_exclusive_sum(u64 value, Scratch& scratch) {
    const u32 lane = threadIdx.x % 32;
    u64 through = value;
#pragma unroll
    for (int delta = 1; delta < 32; delta *= 2) {
        const u64 below = __shfl_up_sync(kAll, through, delta);
        if (lane >= delta) through += below;
    }
    __syncthreads();
    if (lane == 31) scratch.slots[threadIdx.x / 32] = through;
    __syncthreads();
    u64 before = 0;
#pragma unroll
    for (u32 warp = 0; warp < kWarps; ++warp) before += warp < threadIdx.x / 32 ? scratch.slots[warp] : 0;
    return before + through - value;
}
