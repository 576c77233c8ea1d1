// Finds top-k and top-p thresholds by histograms of integer weights: no sort, and whatever order
// the elements come in, the same threshold on every rank.
#pragma once

#include "block.cuh"
#include "rows.cuh"
#include "tile.cuh"

constexpr int kBins = 2048;
constexpr int kBinBits = 11;
constexpr int kPerThread = kBins / kResolveThreads;
constexpr int kMostCandidates = 3072;
// Probabilities relative to the largest one, in fixed point: 2^18 of them still fit.
constexpr float kMassUnit = 17592186044416.0f;  // 2^44

struct SearchMemory {
    u64 bins[kBins];
    u32 keys[kMostCandidates];
    u32 columns[kMostCandidates];
    u64 scratch[kResolveThreads / 32 * 2];
    u64 above;
    u32 candidates;
    int found;
};

struct Window {
    u32 low, high;  // keys, both within
};

// The elements of a row that may be kept, named ones excepted: in shared memory if there is room
// for them, else in the row's tiles whose largest is high enough.
template <typename T>
struct Candidates {
    const typename T::Storage* row;
    const TileStats* stats;
    int tiles, vocab;
    bool aligned;
    int named;   // the lane's
    u32 lowest;  // key
    SearchMemory* memory;
    bool wide;

    // f(valid, key, column) by whole warps.
    template <typename F>
    RS_DEVICE void each(F f) const {
        if (wide) {
            from_tiles(f);
            return;
        }
        const u32 n = memory->candidates;
        for (u32 i = threadIdx.x; i - threadIdx.x % 32 < n; i += kResolveThreads) {
            const bool valid = i < n;
            f(valid, valid ? memory->keys[i] : 0u, valid ? memory->columns[i] : 0u);
        }
    }

    template <typename F>
    RS_DEVICE void from_tiles(F f) const {
        for (int t = threadIdx.x / 32; t < tiles; t += kResolveWarps) {
            if (key_of(stats[t].largest) < lowest) continue;
            each_of_tile<T>(row, t, vocab, aligned, named, [&](float x, u32 column) {
                const u32 key = key_of(x);
                f(key >= lowest, key, column);
            });
        }
    }

    RS_DEVICE void gather() {
        if (threadIdx.x == 0) memory->candidates = 0;
        __syncthreads();
        from_tiles([&](bool valid, u32 key, u32 column) {
            const u32 hits = __ballot_sync(kAll, valid);
            if (hits == 0) return;
            const u32 lane = threadIdx.x % 32;
            u32 base = 0;
            if (lane == 0) base = atomicAdd(&memory->candidates, u32(__popc(hits)));
            base = __shfl_sync(kAll, base, 0);
            const u32 at = base + __popc(hits & ((1u << lane) - 1u));
            if (valid && at < kMostCandidates) {
                memory->keys[at] = key;
                memory->columns[at] = column;
            }
        });
        __syncthreads();
        wide = memory->candidates > kMostCandidates;
    }
};

// The tiles' largest elements, as candidates.
struct TileMaxima {
    const TileStats* stats;
    int tiles;

    template <typename F>
    RS_DEVICE void each(F f) const {
        for (int t = threadIdx.x; t - int(threadIdx.x % 32) < tiles; t += kResolveThreads) {
            const bool valid = t < tiles;
            f(valid, valid ? key_of(stats[t].largest) : 0u, u32(t));
        }
    }
};

struct CountWeight {
    RS_DEVICE u64 operator()(u32) const { return 1; }
};

struct MassWeight {
    float scale, largest;
    RS_DEVICE u64 operator()(u32 key) const {
        return static_cast<u64>(fast_exp2((float_of(key) - largest) * scale) * kMassUnit);
    }
};

// The largest key within the window such that the elements at or above it weigh `target` or more;
// the window's low end if all of them do not. No element is above the window. `extra` (valid, key)
// is one more element of this thread.
template <typename Source, typename Weight>
RS_DEVICE u32 threshold(
    const Source& source, Weight weight, u64 target, Window window, bool extra, u32 extra_key,
    SearchMemory& memory) {
    u64 above = 0;
    while (true) {
        const u32 span = window.high - window.low;
        const int width = 32 - __clz(int(span));
        const int shift = width > kBinBits ? width - kBinBits : 0;
        for (int bin = threadIdx.x; bin < kBins; bin += kResolveThreads) memory.bins[bin] = 0;
        if (threadIdx.x == 0) memory.found = -1;
        __syncthreads();
        const auto add = [&](bool valid, u32 key) {
            valid = valid && key >= window.low && key <= window.high;
            const u32 bin = valid ? (key - window.low) >> shift : 0u;
            const u64 w = valid ? weight(key) : 0;
            // Equal elements would queue up for one bin.
            const u32 first = __shfl_sync(kAll, bin, 0);
            if (__all_sync(kAll, valid && bin == first)) {
                const u64 sum = warp_reduce(w, Plus());
                if (threadIdx.x % 32 == 0) atomicAdd(&memory.bins[bin], sum);
            } else if (valid) {
                atomicAdd(&memory.bins[bin], w);
            }
        };
        source.each([&](bool valid, u32 key, u32) { add(valid, key); });
        add(extra, extra_key);
        __syncthreads();
        u64 mine[kPerThread], sum = 0;
#pragma unroll
        for (int j = 0; j < kPerThread; ++j) {
            mine[j] = memory.bins[kBins - 1 - (threadIdx.x * kPerThread + j)];
            sum += mine[j];
        }
        u64 before = above + block_exclusive_sum(sum, memory.scratch);
#pragma unroll
        for (int j = 0; j < kPerThread; ++j) {
            if (before < target && before + mine[j] >= target) {
                memory.found = kBins - 1 - (threadIdx.x * kPerThread + j);
                memory.above = before;
            }
            before += mine[j];
        }
        __syncthreads();
        const int found = memory.found;
        const u64 heavier = memory.above;
        __syncthreads();
        if (found < 0) return window.low;
        const u32 low = window.low + (u32(found) << shift);
        if (shift == 0) return low;
        const u32 high = low + ((1u << shift) - 1u);
        window = {low, high < window.high ? high : window.high};
        above = heavier;
    }
}

// How far below the row's largest logit nothing can be in the nucleus, in units of scale * x, from
// the tiles' sums alone: at depth d the discarded are at most the sums of the tiles below and, of
// the others, what a tile full of elements at that depth would weigh.
RS_DEVICE float nucleus_depth(
    const TileStats* stats, int tiles, int columns, const Row& row, float largest, double total,
    bool extra, float extra_x, SearchMemory& memory) {
    const double allowed = (1.0 - double(row.top_p)) * total / 1.001;
    float deepest = -log2f(float(allowed / (double(tiles) * columns + kMostNamed)));
    if (!(deepest > 0.0f)) return 0.0f;
    const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    float from = 0.0f, step = deepest / kResolveWarps;
    // Named tokens are held by warp 0; every warp needs them.
    float* named = reinterpret_cast<float*>(memory.scratch);
    __syncthreads();
    if (warp == 0) named[lane] = extra ? extra_x : largest;
    __syncthreads();
    const float named_x = named[lane];
    for (int round = 0; round < 2; ++round) {
        const float depth = from + step * float(warp + 1);
        const float full = float(columns) * fast_exp2(-depth);
        const float below = largest - depth / row.scale;
        double discarded = named_x < below ? fast_exp2((named_x - largest) * row.scale) : 0.0f;
        for (int t = lane; t < tiles; t += 32) {
            const TileStats s = stats[t];
            const float sum = s.sum * fast_exp2((s.largest - largest) * row.scale);
            discarded += s.largest < below ? sum : fminf(sum, full);
        }
        discarded = warp_reduce(discarded, Plus());
        __syncthreads();
        if (threadIdx.x == 0) memory.candidates = kResolveWarps - 1;
        __syncthreads();
        if (lane == 0 && discarded <= allowed) atomicMin(&memory.candidates, warp);
        __syncthreads();
        from += step * float(memory.candidates);
        step /= kResolveWarps;
        __syncthreads();
    }
    return from + step * kResolveWarps;
}
