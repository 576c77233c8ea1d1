// Rows with top-k, top-p or min-p: a threshold on the logits, then a race among those that reach it.
#pragma once

#include "resolve.cuh"
#include "search.cuh"

template <typename T>
struct TruncatedResolver : Resolver<T> {
    using Base = Resolver<T>;
    using Base::logits, Base::stats, Base::tiles, Base::vocab, Base::row, Base::named, Base::named_x;
    using Base::holds_named;

    SearchMemory* memory;

    // The smallest key that min-p keeps: exactly where x / temperature passes vLLM's bound.
    RS_DEVICE u32 min_p_key(float largest) const {
        const float bound = largest / row.temperature + logf(row.min_p);
        u32 key = key_of(bound * row.temperature);
        for (int i = 0; i < 64 && float_of(key - 1) / row.temperature >= bound; ++i) --key;
        for (int i = 0; i < 64 && float_of(key) / row.temperature < bound; ++i) ++key;
        return key;
    }

    // A lower bound of every threshold, so that few elements have to be looked at again.
    RS_DEVICE u32 lowest_key(float largest, double total) const {
        u32 lowest = key_of(-infinity()) + 1;
        if (row.min_p > 0.0f) lowest = Larger()(lowest, min_p_key(largest));
        const u32 highest = key_of(largest);
        if (row.top_k <= tiles) {
            // As many tiles as k have an element at or above the k-th largest of their largest.
            u32 least = highest;
            for (int t = threadIdx.x; t < tiles; t += kThreads) {
                least = Smaller()(least, key_of(clean(stats[t].largest)));
            }
            lowest = Larger()(lowest, block_reduce(least, Smaller(), memory->scratch));
            const TileMaxima<T> maxima = {stats, tiles};
            lowest = threshold(maxima, CountWeight(), u64(row.top_k), {lowest, highest}, holds_named(),
                               key_of(named_x), *memory).key;
        } else if (row.top_k >= vocab && row.top_p < 1.0f && !(row.min_p > 0.0f)) {
            const float depth = nucleus_depth(stats, tiles, kTileColumns<T>, row, largest, total, named,
                                              named_x, *memory);
            const float below = largest - depth / row.scale;
            lowest = Larger()(lowest, key_of(below - fabsf(below) * 1e-6f));
        }
        return lowest < highest ? lowest : highest;
    }

    RS_DEVICE Verdict run() const {
        float most = named_x;
        for (int t = threadIdx.x; t < tiles; t += kThreads) most = fmaxf(most, stats[t].largest);
        const float largest = clean(block_reduce(most, Larger(), memory->scratch));
        if (!(largest > -infinity())) return {0, 0};
        const MassWeight mass = {row.scale, largest};
        double everything = 0.0;  // which only a nucleus asks for
        if (row.top_p < 1.0f) {
            for (int t = threadIdx.x; t < tiles; t += kThreads) {
                everything += stats[t].sum * fast_exp2((stats[t].largest - largest) * row.scale);
            }
            if (holds_named()) everything += fast_exp2((named_x - largest) * row.scale);
            everything = block_reduce(everything, Plus(), memory->scratch);
        }

        const u32 highest = key_of(largest), mine = key_of(named_x);
        u32 low = lowest_key(largest, everything);
        Candidates<T> candidates = {logits, stats, tiles, vocab, aligned16<T>(logits), named, low, memory,
                                    false};
        candidates.gather();
        if (row.top_k < vocab) {
            low = threshold(candidates, CountWeight(), u64(row.top_k), {low, highest}, holds_named(), mine,
                            *memory).key;
            candidates.raise(low);
        }
        double total;
        if (row.top_p < 1.0f) {
            double kept = everything * kMassUnit;
            if (row.top_k < vocab || row.min_p > 0.0f) kept = mass_from(candidates, mass, low, mine);
            u64 target = u64(double(row.top_p) * kept);
            const Cut cut = threshold(candidates, mass, target > 0 ? target : 1, {low, highest},
                                      holds_named(), mine, *memory);
            low = cut.key;
            total = double(cut.weight);
            candidates.raise(low);
        } else {
            total = mass_from(candidates, mass, low, mine);
        }
        const float weight = named >= 0 && mine >= low ? float(mass(mine)) : 0.0f;
        double left;
        const bool accepted = Base::test(weight, total, &left);
        if (accepted) return {row.draft, 1};
        Best best = Base::best_named(left / kMassUnit);
        candidates.each([&](bool valid, u32 key, u32 column) {
            if (!valid || key < low) return;
            const float noise = row.stream().noise(kToken, column);
            best = Better()(best, Best{(float_of(key) - largest) * row.scale - noise, column});
        });
        best = block_reduce(best, Better(), memory->scratch);
        if (best.index == 0xffffffffu) return {row.draft < 0 ? 0 : row.draft, 0};
        return {Base::token_of(best), 0};
    }

    // What is kept at or above a key, named tokens included.
    RS_DEVICE double mass_from(const Candidates<T>& candidates, MassWeight mass, u32 low, u32 mine) const {
        u64 sum = holds_named() && mine >= low ? mass(mine) : 0;
        candidates.each([&](bool valid, u32 key, u32) {
            if (valid && key >= low) sum += mass(key);
        });
        return double(block_reduce(sum, Plus(), memory->scratch));
    }
};
