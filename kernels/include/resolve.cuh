// One block per row: whether the row's draft is accepted, and which token replaces it otherwise.
#pragma once

#include "search.cuh"

template <typename T>
struct Resolver {
    const typename T::Storage* logits;  // the row
    const TileStats* stats;             // the row's tiles
    int tiles, vocab;
    bool aligned;
    Row row;
    SearchMemory* memory;
    // The thread's named token, in the first 32 threads; every warp's lanes have the same.
    int named;
    float named_q;  // the draft's probability of it
    float named_x;  // the target's logit of it

    RS_DEVICE bool holds_named() const { return threadIdx.x < 32 && named >= 0; }

    RS_DEVICE Verdict run() {
        void* scratch = memory->scratch;
        float most = -infinity();
        for (int t = threadIdx.x; t < tiles; t += kResolveThreads) most = fmaxf(most, stats[t].largest);
        const float rest = block_max(most, scratch);
        if (row.greedy()) return greedy(clean(rest));
        const float largest = block_max(fmaxf(rest, holds_named() ? named_x : -infinity()), scratch);
        if (!(largest > -infinity())) return {0, 0};
        return row.truncated(vocab) ? truncated(largest) : whole(largest);
    }

    RS_DEVICE Verdict greedy(float rest) {
        u32 first = 0xffffffffu;
        for (int t = threadIdx.x; t < tiles; t += kResolveThreads) {
            if (clean(stats[t].largest) == rest) {
                first = u32(t);
                break;
            }
        }
        first = block_min(first, memory->scratch);
        u32 column = 0xffffffffu;
        if (first < u32(tiles) && threadIdx.x < 32) {
            each_of_tile<T>(logits, int(first), vocab, aligned, -1, [&](float x, u32 at) {
                if (x == rest && int(at) != row.draft && at < u32(vocab) && at < column) column = at;
            });
        }
        const u32 other = block_min(column, memory->scratch);
        if (row.draft < 0) return {other < u32(vocab) ? int(other) : 0, 0};
        const float x = draft_value(named_x);
        const bool wins = other >= u32(vocab) || x > rest || (x == rest && u32(row.draft) < other);
        return {wins ? row.draft : int(other), wins && fmaxf(x, rest) > -infinity()};
    }

    // What warp 0 knows of the draft, which is one of the named tokens, told to everybody.
    RS_DEVICE float draft_value(float value) {
        float* told = reinterpret_cast<float*>(memory->scratch);
        __syncthreads();
        if (threadIdx.x == 0) told[0] = 0.0f;
        __syncthreads();
        if (holds_named() && named == row.draft) told[0] = value;
        __syncthreads();
        return told[0];
    }

    // Accept with probability min(1, p/q); what is left of a named token is max(p - q, 0).
    RS_DEVICE bool test(float weight, double total, double* left) {
        const bool mine = holds_named();
        const double over = double(named_q) * total;
        *left = !mine ? 0.0 : double(weight) > over ? double(weight) - over : 0.0;
        const float w = draft_value(weight);
        const float q = draft_value(named_q);
        return row.draft >= 0 && double(w) > row.stream().uniform(kAccept, 0) * q * total;
    }

    RS_DEVICE float score(double weight, Domain domain, u32 index) const {
        return log2f(float(weight)) - row.stream().noise(domain, index);
    }

    RS_DEVICE Best best_named(double left) const {
        if (!holds_named() || !(left > 0.0)) return {-infinity(), 0xffffffffu};
        return {score(left, kNamed, u32(named)), u32(vocab) + threadIdx.x};
    }

    RS_DEVICE int name_of(u32 index) {
        int* told = reinterpret_cast<int*>(memory->scratch);
        __syncthreads();
        if (threadIdx.x < 32) told[threadIdx.x] = named;
        __syncthreads();
        return told[index - u32(vocab)];
    }

    // No truncation: first a tile by its sum, then a token within it.
    RS_DEVICE Verdict whole(float largest) {
        const float scale = row.scale;
        double sum = 0.0;
        Best best = {-infinity(), 0xffffffffu};
        for (int t = threadIdx.x; t < tiles; t += kResolveThreads) {
            const TileStats s = stats[t];
            if (!(s.sum > 0.0f)) continue;
            const float exponent = (s.largest - largest) * scale;
            sum += s.sum * fast_exp2(exponent);
            const Best mine = {exponent + score(s.sum, kTile, u32(t)), u32(t)};
            best = Better()(best, mine);
        }
        const float weight = holds_named() ? fast_exp2((named_x - largest) * scale) : 0.0f;
        const double total = block_sum(sum + weight, memory->scratch);
        double left;
        const bool accepted = test(weight, total, &left);
        best = block_best(Better()(best, best_named(left)), memory->scratch);
        if (best.index == 0xffffffffu) return {row.draft < 0 ? 0 : row.draft, accepted};
        if (best.index >= u32(vocab)) return {name_of(best.index), accepted};
        const int chosen = int(best.index);
        best = {-infinity(), 0xffffffffu};
        if (threadIdx.x < 32) {
            each_of_tile<T>(logits, chosen, vocab, aligned, named, [&](float x, u32 column) {
                if (!(x > -infinity())) return;
                const float noise = row.stream().noise(kToken, column);
                best = Better()(best, Best{(x - largest) * scale - noise, column});
            });
        }
        best = block_best(best, memory->scratch);
        return {best.index < u32(vocab) ? int(best.index) : 0, accepted};
    }

    // The smallest key that min-p keeps: exactly where x / temperature passes vLLM's bound.
    RS_DEVICE u32 min_p_key(float largest) const {
        const float bound = largest / row.temperature + logf(row.min_p);
        u32 key = key_of(bound * row.temperature);
        for (int i = 0; i < 64 && float_of(key - 1) / row.temperature >= bound; ++i) --key;
        for (int i = 0; i < 64 && float_of(key) / row.temperature < bound; ++i) ++key;
        return key;
    }

    // A lower bound of every threshold, so that few elements have to be looked at again.
    RS_DEVICE u32 lowest_key(float largest, double total) {
        u32 lowest = key_of(-infinity()) + 1;
        if (row.min_p > 0.0f) lowest = Larger()(lowest, min_p_key(largest));
        const u32 highest = key_of(largest);
        if (row.top_k <= tiles) {
            // As many tiles as k have an element at or above the k-th largest of their largest.
            const TileMaxima maxima = {stats, tiles};
            lowest = threshold(maxima, CountWeight(), u64(row.top_k), {lowest, highest}, holds_named(),
                               key_of(named_x), *memory);
        } else if (row.top_k >= vocab && row.top_p < 1.0f && !(row.min_p > 0.0f)) {
            const float depth = nucleus_depth(stats, tiles, kTileColumns<T>, row, largest, total,
                                              holds_named(), named_x, *memory);
            const float below = largest - depth / row.scale;
            lowest = Larger()(lowest, key_of(below - fabsf(below) * 1e-6f));
        }
        return lowest < highest ? lowest : highest;
    }

    RS_DEVICE Verdict truncated(float largest) {
        const MassWeight mass = {row.scale, largest};
        double sum = 0.0;
        for (int t = threadIdx.x; t < tiles; t += kResolveThreads) {
            sum += stats[t].sum * fast_exp2((stats[t].largest - largest) * row.scale);
        }
        if (holds_named()) sum += fast_exp2((named_x - largest) * row.scale);
        const double everything = block_sum(sum, memory->scratch);

        const u32 highest = key_of(largest), mine = key_of(named_x);
        u32 low = lowest_key(largest, everything);
        Candidates<T> candidates = {logits, stats, tiles, vocab, aligned, named, low, memory, false};
        candidates.gather();
        if (row.top_k < vocab) {
            low = threshold(candidates, CountWeight(), u64(row.top_k), {low, highest}, holds_named(), mine,
                            *memory);
        }
        if (row.top_p < 1.0f) {
            double kept = everything;
            if (row.top_k < vocab || row.min_p > 0.0f) kept = mass_from(candidates, mass, low, mine);
            else kept *= kMassUnit;
            u64 target = u64(double(row.top_p) * kept);
            low = threshold(candidates, mass, target > 0 ? target : 1, {low, highest}, holds_named(), mine,
                            *memory);
        }

        const double total = mass_from(candidates, mass, low, mine);
        const float weight = holds_named() && mine >= low ? float(mass(mine)) : 0.0f;
        double left;
        const bool accepted = test(weight, total, &left);
        Best best = best_named(left / kMassUnit);
        candidates.each([&](bool valid, u32 key, u32 column) {
            if (!valid || key < low) return;
            const float noise = row.stream().noise(kToken, column);
            best = Better()(best, Best{(float_of(key) - largest) * row.scale - noise, column});
        });
        best = block_best(best, memory->scratch);
        if (best.index == 0xffffffffu) return {row.draft < 0 ? 0 : row.draft, accepted};
        return {best.index >= u32(vocab) ? name_of(best.index) : int(best.index), accepted};
    }

    // What is kept at or above a key, named tokens included.
    RS_DEVICE double mass_from(const Candidates<T>& candidates, MassWeight mass, u32 low, u32 mine) {
        u64 sum = holds_named() && mine >= low ? mass(mine) : 0;
        candidates.each([&](bool valid, u32 key, u32) {
            if (valid && key >= low) sum += mass(key);
        });
        return double(block_sum(sum, memory->scratch));
    }
};
