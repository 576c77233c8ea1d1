// What a row gives, by a block: whether its draft is accepted, and which token replaces it
// otherwise. Rows without truncation; truncated.cuh has the others.
#pragma once

#include "tile.cuh"

template <typename T>
struct Resolver {
    const typename T::Storage* logits;  // the row
    const TileStats* stats;             // the row's tiles
    int tiles, vocab;
    Row row;
    Scratch* scratch;
    // The lane's named token, the same in every warp.
    int named;      // or -1
    float named_q;  // the draft's probability of it
    float named_x;  // the target's logit of it
    int first_column, first_tile;  // of a shard
    TileStats first;  // of the thread's first tile

    static RS_DEVICE Resolver of(const Arguments& a, i64 index, const Row& row, Scratch* scratch) {
        const int lane = threadIdx.x % 32;
        const auto* logits = static_cast<const typename T::Storage*>(a.logits) + index * a.stride;
        const i64 at = index * a.named_count + lane;
        int named = lane < a.named_count ? a.named_ids[at] : -1;
        const float q = lane < a.named_count ? a.named_q[at] : 0.0f;
        named -= named < 0 ? 0 : a.first_column;
        if (named < 0 || named >= a.vocab) named = -1;
        const float x = named >= 0 ? clean(T::value(logits[named])) : -infinity();
        return {logits, a.stats + index * a.tiles, a.tiles, a.vocab, row, scratch,
                named,  q, x, a.first_column, a.first_tile, {-infinity(), 0.0f}};
    }

    // From here on the row's tiles have been read.
    RS_DEVICE void begin() {
        if (int(threadIdx.x) < tiles) first = load_from_others(stats + threadIdx.x);
    }

    // Named tokens count once: they are warp 0's.
    RS_DEVICE bool holds_named() const { return threadIdx.x < 32 && named >= 0; }

    // What the lane that has the draft knows of it; 0 where there is none.
    RS_DEVICE float of_draft(float value) const {
        const u32 lanes = __ballot_sync(kAll, named >= 0 && named == row.draft - first_column);
        return lanes ? __shfl_sync(kAll, value, __ffs(lanes) - 1) : 0.0f;
    }

    RS_DEVICE float score(double weight, Domain domain, u32 index) const {
        return log2f(float(weight)) - row.stream().noise(domain, index);
    }

    // f(tile, its numbers) for the thread's share of the tiles.
    template <typename F>
    RS_DEVICE void each_stat(F f) const {
        if (int(threadIdx.x) < tiles) f(int(threadIdx.x), first);
        for (int t = threadIdx.x + kThreads; t < tiles; t += kThreads) f(t, load_from_others(stats + t));
    }

    // The row's first largest logit and its column.
    RS_DEVICE Best argmax() const {
        Best best = {-infinity(), 0xffffffffu};
        each_stat([&](int t, TileStats s) {
            const u32 column = u32(t) * kTileColumns<T> + __float_as_uint(s.sum);
            best = Better()(best, Best{clean(s.largest), column});
        });
        return block_reduce(best, Better(), *scratch);
    }

    // Accept with probability min(1, p / q); what is left of a named token is max(p - q, 0).
    RS_DEVICE bool test(float weight, double total, double* left) const {
        const double over = double(named_q) * total;
        *left = named >= 0 && double(weight) > over ? double(weight) - over : 0.0;
        const float w = of_draft(weight), q = of_draft(named_q);
        return row.draft >= 0 && double(w) > row.stream().uniform(kAccept, 0) * q * total;
    }

    // Indices from `vocab` on are lanes of named tokens.
    RS_DEVICE Best best_named(double left) const {
        if (!holds_named() || !(left > 0.0)) return {-infinity(), 0xffffffffu};
        return {score(left, kNamed, u32(named)), u32(vocab) + threadIdx.x};
    }

    RS_DEVICE int token_of(Best best) const {
        const int lane = int(best.index) - vocab;
        const int name = __shfl_sync(kAll, named, lane & 31);
        return lane < 0 ? int(best.index) : name;
    }

    // A tile wins by its sum, 0 being the row's `largest`.
    RS_DEVICE Best tile_race(float largest, double* sum) const {
        Best best = {-infinity(), 0xffffffffu};
        each_stat([&](int t, TileStats s) {
            if (!(s.sum > 0.0f)) return;
            const float exponent = (s.largest - largest) * row.scale;
            *sum += s.sum * fast_exp2(exponent);
            best = Better()(best, Best{exponent + score(s.sum, kTile, u32(first_tile + t)), u32(t)});
        });
        return best;
    }

    // A token wins within a tile: its columns are spread over the whole block.
    RS_DEVICE int token_within(int tile, float largest) const {
        constexpr int kEach = (kTileColumns<T> + kThreads - 1) / kThreads;
        const int base = tile * kTileColumns<T>;
        typename T::Storage raw[kEach];
#pragma unroll
        for (int i = 0; i < kEach; ++i) {
            const int offset = int(threadIdx.x) + i * kThreads;
            const bool there = offset < kTileColumns<T> && base + offset < vocab;
            raw[i] = there ? logits[base + offset] : typename T::Storage(T::kLowest);
        }
        u32 hits = __ballot_sync(kAll, named >= base && named < base + kTileColumns<T>);
        while (hits) {
            const int out = __shfl_sync(kAll, named, __ffs(hits) - 1) - base;
            hits &= hits - 1;
#pragma unroll
            for (int i = 0; i < kEach; ++i) {
                if (out == int(threadIdx.x) + i * kThreads) raw[i] = typename T::Storage(T::kLowest);
            }
        }
        Best best = {-infinity(), 0xffffffffu};
#pragma unroll
        for (int i = 0; i < kEach; ++i) {
            const float x = clean(T::value(raw[i]));
            if (!(x > -infinity())) continue;
            const u32 column = u32(base) + threadIdx.x + i * kThreads;
            const float noise = row.stream().noise(kToken, u32(first_column) + column);
            best = Better()(best, Best{(x - largest) * row.scale - noise, column});
        }
        best = block_reduce(best, Better(), *scratch);
        return best.index < u32(vocab) ? int(best.index) : 0;
    }

    RS_DEVICE Verdict greedy() const {
        const Best best = argmax();
        const bool known = best.score > -infinity();
        return {int(best.index), known && int(best.index) == row.draft};
    }

    RS_DEVICE float largest_of_rest() const {
        float most = -infinity();
        each_stat([&](int, TileStats s) { most = fmaxf(most, s.largest); });
        return block_reduce(most, Larger(), *scratch);
    }

    RS_DEVICE Verdict sampled() const {
        const float largest = fmaxf(largest_of_rest(), warp_reduce(named_x, Larger()));
        if (!(largest > -infinity())) return {0, 0};
        double sum = 0.0;
        Best best = tile_race(largest, &sum);
        const float weight = named >= 0 ? fast_exp2((named_x - largest) * row.scale) : 0.0f;
        if (holds_named()) sum += weight;
        const double total = block_reduce(sum, Plus(), *scratch);
        double left;
        const bool accepted = test(weight, total, &left);
        best = block_reduce(Better()(best, best_named(left)), Better(), *scratch);
        if (accepted || best.index == 0xffffffffu) return {row.draft < 0 ? 0 : row.draft, accepted};
        if (best.index >= u32(vocab)) return {token_of(best), 0};
        return {token_within(int(best.index), largest), 0};
    }

    RS_DEVICE Verdict run() const { return row.greedy() ? greedy() : sampled(); }

    // What this shard contributes to the row.
    RS_DEVICE Summary summary() const {
        if (row.greedy()) {
            const Best best = argmax();
            return {0.0, best.score, -infinity(), 0.0f, first_column + int(best.index), {0, 0}};
        }
        const float largest = largest_of_rest();
        Summary mine = {0.0, largest, warp_reduce(named_x, Larger()), -infinity(), -1, {0, 0}};
        if (!(largest > -infinity())) return mine;
        double sum = 0.0;
        const Best best = block_reduce(tile_race(largest, &sum), Better(), *scratch);
        mine.sum = block_reduce(sum, Plus(), *scratch);
        if (best.index == 0xffffffffu) return mine;
        mine.score = best.score;
        mine.token = first_column + token_within(int(best.index), largest);
        return mine;
    }
};

// Writes a row's verdict; the last of a request's rows to do so writes its tokens: drafts up to the
// first rejected one, then what replaces it. By warp 0.
RS_DEVICE void finish(const Arguments& a, i64 index, const Row& row, Verdict mine) {
    if (threadIdx.x >= 32) return;
    const int lane = threadIdx.x;
    int others = 0;
    if (lane == 0) {
        if (mine.accepted) mine.token = row.draft;
        a.verdicts[index] = mine;
        others = count_in(&a.requests_done[row.request]);
    }
    // The shuffle orders the others' reads after the count.
    if (__shfl_sync(kAll, others, 0) + 1 != row.count) return;
    __syncwarp();
    const i64 first = index - row.place;
    i64* out = a.sampled + i64(row.request) * a.places;
    int n = 0;
    for (int at = 0; at < a.places; at += 32) {
        const int place = at + lane;
        const bool counts = n == at && place < row.count;
        const Verdict verdict = counts ? load_from_others(a.verdicts + first + place) : Verdict{-1, 0};
        const u32 ends = __ballot_sync(kAll, !verdict.accepted);
        const int through = ends ? __ffs(ends) - 1 : 32;  // drafts accepted of these
        if (n == at) n += through;
        if (place < a.places) out[place] = place <= n && counts ? verdict.token : -1;
    }
    // A request's last row tests no draft, so one of its rows ends it.
    if (lane == 0) a.num_sampled[row.request] = n + 1;
}
