// Finds top-k and top-p thresholds by histograms of integer weights: no sort, and whatever order
// the elements come in, the same threshold on every rank.
#pragma once

#include "tile.cuh"

#ifndef RAYSPEC_CANDIDATES
#define RAYSPEC_CANDIDATES 2048
#endif
constexpr int kMostCandidates = RAYSPEC_CANDIDATES;
constexpr int kBins = 2048;
constexpr int kBinBits = 11;
constexpr int kPerThread = kBins / kThreads;
// Probabilities relative to the largest one, in fixed point: 2^18 of them still fit.
constexpr float kMassUnit = 17592186044416.0f;  // 2^44

struct SearchMemory {
    u64 bins[kBins];
    u32 keys[kMostCandidates];
    u32 columns[kMostCandidates];
    Scratch scratch;
    u64 above, through;
    u32 candidates;
    u32 shallowest;
    int found;
};

struct Window {
    u32 low, high;  // keys, both within
};

// A threshold, and what the elements at or above it weigh.
struct Cut {
    u32 key;
    u64 weight;
};

// Where a bin lies: a thread sums up bins next to each other, which must not share a bank.
RS_DEVICE u32 place_of(u32 bin) { return bin % kPerThread * kThreads + bin / kPerThread; }

// The elements of a row that may be kept, named ones excepted: in shared memory if there is room
// for them, else in the row's tiles whose largest is high enough.
template <typename T>
struct Candidates {
    static constexpr int kSpareBits = T::kSpareBits;

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
            each_tile([&](int t, const Tile<T>& tile) {
#pragma unroll 1
                for (int s = 0; s < kStripes; ++s) {
                    const int base = t * kTileColumns<T> + s * Stripe<T>::kColumns;
                    tile.pick(s).each(base, [&](float x, u32 column) {
                        const u32 key = key_of(x);
                        f(key >= lowest, key, column);
                    });
                }
                return true;
            });
            return;
        }
        const u32 n = memory->candidates;
        for (u32 i = threadIdx.x; i - threadIdx.x % 32 < n; i += kThreads) {
            const bool valid = i < n;
            f(valid, valid ? memory->keys[i] : 0u, valid ? memory->columns[i] : 0u);
        }
    }

    // f(tile, its elements but the named ones) for the warp's share of the tiles that reach `lowest`,
    // until it says false. Lanes look at one tile's largest each; the next tile is on its way meanwhile.
    template <typename F>
    RS_DEVICE void each_tile(F f) const {
        const int lane = threadIdx.x % 32;
        int from = int(threadIdx.x / 32) - 32 * kWarps;
        u32 hits = 0;
        const auto advance = [&] {
            while (hits == 0) {
                from += 32 * kWarps;
                if (from >= tiles) return -1;
                const int mine = from + lane * kWarps;
                const float largest = stats[mine < tiles ? mine : 0].largest;
                hits = __ballot_sync(kAll, mine < tiles && key_of(clean(largest)) >= lowest);
            }
            const int tile = from + (__ffs(hits) - 1) * kWarps;
            hits &= hits - 1;
            return tile;
        };
        Tile<T> next;
        int t = advance();
        if (t >= 0) next.load(row, t, vocab, aligned);
        while (t >= 0) {
            Tile<T> tile = next;
            const int after = advance();
            if (after >= 0) next.load(row, after, vocab, aligned);
            tile.leave_out(named, t);
            if (!f(t, tile)) return;
            t = after;
        }
    }

    RS_DEVICE void gather() {
        if (threadIdx.x == 0) memory->candidates = 0;
        __syncthreads();
        each_tile([&](int t, const Tile<T>& tile) {
            bool room = true;
#pragma unroll
            for (int s = 0; s < kStripes; ++s) {
                if (!__any_sync(kAll, key_of(clean(tile.stripes[s].largest())) >= lowest)) continue;
                const int base = t * kTileColumns<T> + s * Stripe<T>::kColumns;
                tile.stripes[s].each(base, [&](float x, u32 column) { room = keep(key_of(x), column) && room; });
            }
            return room;
        });
        __syncthreads();
        wide = memory->candidates > kMostCandidates;
    }

    // Only those from a key on matter from here on: there may be room for them.
    RS_DEVICE void raise(u32 key) {
        if (!wide || key <= lowest) return;
        lowest = key;
        gather();
    }

    // Whether there was room.
    RS_DEVICE bool keep(u32 key, u32 column) {
        const u32 hits = __ballot_sync(kAll, key >= lowest);
        if (hits == 0) return true;
        const u32 lane = threadIdx.x % 32;
        u32 base = 0;
        if (lane == 0) base = atomicAdd(&memory->candidates, u32(__popc(hits)));
        base = __shfl_sync(kAll, base, 0);
        const u32 at = base + __popc(hits & ((1u << lane) - 1u));
        if (key >= lowest && at < kMostCandidates) {
            memory->keys[at] = key;
            memory->columns[at] = column;
        }
        return base <= kMostCandidates;
    }
};

// The tiles' largest elements, as candidates.
template <typename T>
struct TileMaxima {
    static constexpr int kSpareBits = T::kSpareBits;

    const TileStats* stats;
    int tiles;

    template <typename F>
    RS_DEVICE void each(F f) const {
        for (int t = threadIdx.x; t - int(threadIdx.x % 32) < tiles; t += kThreads) {
            const bool valid = t < tiles;
            f(valid, valid ? key_of(clean(stats[t].largest)) : 0u, u32(t));
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

// A key within the window such that exactly those elements are at or above it that are at or above
// the largest element where they weigh `target` or more; the window's low end if all of them do not.
// No element is above the window. `extra` (valid, key) is one more element of this thread. Bins are
// made narrower until different elements cannot share one.
template <typename Source, typename Weight>
RS_DEVICE Cut threshold(
    const Source& source, Weight weight, u64 target, Window window, bool extra, u32 extra_key,
    SearchMemory& memory) {
    u64 above = 0;
    while (true) {
        const u32 span = window.high - window.low;
        const int width = 32 - __clz(int(span));
        const int shift = width > kBinBits ? width - kBinBits : 0;
        for (int bin = threadIdx.x; bin < kBins; bin += kThreads) memory.bins[bin] = 0;
        if (threadIdx.x == 0) memory.found = -1;
        __syncthreads();
        const auto add = [&](bool valid, u32 key) {
            valid = valid && key >= window.low && key <= window.high;
            if (!__any_sync(kAll, valid)) return;
            const u32 bin = valid ? (key - window.low) >> shift : 0u;
            const u64 w = valid ? weight(key) : 0;
            // Equal elements would queue up for one bin.
            const u32 first = __shfl_sync(kAll, bin, 0);
            if (__all_sync(kAll, valid && bin == first)) {
                const u64 sum = warp_reduce(w, Plus());
                if (threadIdx.x % 32 == 0) add_shared(&memory.bins[place_of(bin)], sum);
            } else if (valid) {
                add_shared(&memory.bins[place_of(bin)], w);
            }
        };
        source.each([&](bool valid, u32 key, u32) { add(valid, key); });
        add(extra, extra_key);
        __syncthreads();
        u64 mine[kPerThread], sum = 0;
#pragma unroll
        for (int j = 0; j < kPerThread; ++j) {
            mine[j] = memory.bins[place_of(kBins - 1 - (threadIdx.x * kPerThread + j))];
            sum += mine[j];
        }
        u64 before = above + block_exclusive_sum(sum, memory.scratch);
#pragma unroll
        for (int j = 0; j < kPerThread; ++j) {
            if (before < target && before + mine[j] >= target) {
                memory.found = kBins - 1 - (threadIdx.x * kPerThread + j);
                memory.above = before;
                memory.through = before + mine[j];
            }
            before += mine[j];
        }
        if (threadIdx.x == kThreads - 1 && before < target) memory.through = before;
        __syncthreads();
        const int found = memory.found;
        const u64 heavier = memory.above, through = memory.through;
        __syncthreads();
        if (found < 0) return {window.low, through};
        const u32 low = window.low + (u32(found) << shift);
        if (shift <= Source::kSpareBits) return {low, through};
        const u32 high = low + ((1u << shift) - 1u);
        window = {low, high < window.high ? high : window.high};
        above = heavier;
    }
}

// How far below the row's largest logit nothing can be in the nucleus, in units of scale * x, from
// the tiles' numbers alone. At a depth, of the tiles whose largest is deeper everything is discarded;
// of the others at most all but their largest, and at most what a tile of elements at that depth
// weighs. Warps try as many depths at a time.
RS_DEVICE float nucleus_depth(
    const TileStats* stats, int tiles, int columns, const Row& row, float largest, double total,
    int named, float named_x, SearchMemory& memory) {
    const float allowed = float((1.0 - double(row.top_p)) * total / 1.001);
    const float deepest = -log2f(allowed / (float(tiles) * float(columns) + kMostNamed));
    if (!(deepest > 0.0f)) return 0.0f;
    // A tile's largest is 1 in its sum but for the rounding of scale * x.
    const float more = 1.0f + 1e-5f + fabsf(largest * row.scale) * 3e-7f;
    const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    float from = 0.0f, step = deepest / kWarps;
    for (int round = 0; round < 3; ++round) {
        const float depth = from + step * float(warp + 1);
        const float full = float(columns) * fast_exp2(-depth);
        const float below = largest - depth / row.scale;
        float discarded = 0.0f;
        if (named >= 0 && named_x < below) discarded = fast_exp2((named_x - largest) * row.scale);
        for (int t = lane; t < tiles; t += 32) {
            const TileStats s = stats[t];
            const float first = fast_exp2((s.largest - largest) * row.scale);
            discarded += s.largest < below ? s.sum * first : fminf((s.sum * more - 1.0f) * first, full);
        }
        discarded = warp_reduce(discarded, Plus());
        __syncthreads();
        if (threadIdx.x == 0) memory.shallowest = kWarps - 1;
        __syncthreads();
        if (lane == 0 && discarded <= allowed) atomicMin(&memory.shallowest, warp);
        __syncthreads();
        from += step * float(memory.shallowest);
        step /= kWarps;
    }
    return from + step * kWarps;
}
