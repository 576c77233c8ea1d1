// Reductions over a block in a fixed order: the same input gives the same bits.
#pragma once

#include "device.cuh"

constexpr int kResolveThreads = 512;
constexpr int kResolveWarps = kResolveThreads / 32;

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
    RS_DEVICE double operator()(double a, double b) const { return a + b; }
    RS_DEVICE u64 operator()(u64 a, u64 b) const { return a + b; }
};
// The lower index wins a tie.
struct Better {
    RS_DEVICE Best operator()(Best a, Best b) const {
        return b.score > a.score || (b.score == a.score && b.index < a.index) ? b : a;
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

// Every thread gets the result. `scratch` holds a V for each warp.
template <typename V, typename Op>
RS_DEVICE V block_reduce(V value, Op op, void* scratch) {
    V* slots = static_cast<V*>(scratch);
    value = warp_reduce(value, op);
    __syncthreads();  // Whoever used the scratch before has read it.
    if (threadIdx.x % 32 == 0) slots[threadIdx.x / 32] = value;
    __syncthreads();
    return warp_reduce(slots[threadIdx.x % kResolveWarps], op);
}

RS_DEVICE float block_max(float v, void* s) { return block_reduce(v, Larger(), s); }
RS_DEVICE u32 block_min(u32 v, void* s) { return block_reduce(v, Smaller(), s); }
RS_DEVICE Best block_best(Best v, void* s) { return block_reduce(v, Better(), s); }

// Sums need each warp's part once, so half of the lanes hold nothing.
template <typename V>
RS_DEVICE V block_sum(V value, void* scratch) {
    V* slots = static_cast<V*>(scratch);
    value = warp_reduce(value, Plus());
    __syncthreads();
    if (threadIdx.x % 32 == 0) slots[threadIdx.x / 32] = value;
    __syncthreads();
    const u32 lane = threadIdx.x % 32;
    return warp_reduce(lane < kResolveWarps ? slots[lane] : V(0), Plus());
}

// The sum over all threads before this one.
RS_DEVICE u64 block_exclusive_sum(u64 value, void* scratch) {
    u64* slots = static_cast<u64*>(scratch);
    const u32 lane = threadIdx.x % 32;
    u64 through = value;
#pragma unroll
    for (int delta = 1; delta < 32; delta *= 2) {
        const u64 below = __shfl_up_sync(kAll, through, delta);
        if (lane >= delta) through += below;
    }
    __syncthreads();
    if (lane == 31) slots[threadIdx.x / 32] = through;
    __syncthreads();
    u64 before = 0;
    for (u32 warp = 0; warp < threadIdx.x / 32; ++warp) before += slots[warp];
    return before + through - value;
}
