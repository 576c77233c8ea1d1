// How a warp reads a row: in stripes of 16 bytes a lane, four to a tile of 2 KB. Which columns a
// tile spans depends on the element type only, not on where the row lies.
#pragma once

#include "block.cuh"
#include "rows.cuh"

constexpr int kStripes = 4;

template <typename T>
struct Stripe {
    static constexpr int kPer = T::kPerWords;
    static constexpr int kColumns = 32 * kPer;

    Words raw;

    RS_DEVICE void load(const typename T::Storage* row, int base, int vocab, bool aligned) {
        const int column = base + (threadIdx.x % 32) * kPer;
        if (aligned && column + kPer <= vocab) {
            raw = load_words(row + column);
        } else {
            raw = Words{{0, 0, 0, 0}};
#pragma unroll
            for (int j = 0; j < kPer; ++j) {
                T::set(raw, j, column + j < vocab ? u32(row[column + j]) : T::kLowest);
            }
        }
    }

    // Leave the named tokens out. Every lane of the warp has one of them, or -1.
    RS_DEVICE void leave_out(int named, int base) {
        u32 hits = __ballot_sync(kAll, named >= base && named < base + kColumns);
        while (hits) {
            const int offset = __shfl_sync(kAll, named, __ffs(hits) - 1) - base;
            hits &= hits - 1;
            const int at = offset / kPer == int(threadIdx.x % 32) ? offset % kPer : -1;
#pragma unroll
            for (int j = 0; j < kPer; ++j) {
                if (j == at) T::set(raw, j, T::kLowest);
            }
        }
    }

    // Calls f(value, column) for every element of the lane, NaN and infinities cleaned.
    template <typename F>
    RS_DEVICE void each(int base, F f) const {
        const int first = base + (threadIdx.x % 32) * kPer;
#pragma unroll
        for (int j = 0; j < kPer; ++j) f(clean(T::get(raw, j)), u32(first + j));
    }

    RS_DEVICE float largest() const {
        return T::largest(larger());
    }

    // The lane's words' largest elements, a word of them.
    RS_DEVICE u32 larger() const {
        return T::larger(T::larger(raw.w[0], raw.w[1]), T::larger(raw.w[2], raw.w[3]));
    }

    // The sum of 2^(scale * x + shift); NaN where the lane holds NaN or infinities.
    RS_DEVICE float sum(float scale, float shift) const {
        float parts[2] = {0.0f, 0.0f};
#pragma unroll
        for (int j = 0; j < kPer; ++j) parts[j % 2] += fast_exp2(fmaf(T::get(raw, j), scale, shift));
        return parts[0] + parts[1];
    }
};

template <typename T>
constexpr int kTileColumns = kStripes * Stripe<T>::kColumns;

template <typename T>
RS_DEVICE bool aligned16(const typename T::Storage* row) {
    return (reinterpret_cast<u64>(row) & 15) == 0;
}

// A tile in a warp's registers.
template <typename T>
struct Tile {
    Stripe<T> stripes[kStripes];

    RS_DEVICE void load(const typename T::Storage* row, int tile, int vocab, bool aligned) {
        const int base = tile * kTileColumns<T>;
        if (aligned && base + kTileColumns<T> <= vocab) {
            // Four loads without a branch between them are in flight together.
            row += base + (threadIdx.x % 32) * T::kPerWords;
#pragma unroll
            for (int s = 0; s < kStripes; ++s) {
                stripes[s].raw = load_words(row + s * Stripe<T>::kColumns);
            }
            return;
        }
#pragma unroll 1
        for (int s = 0; s < kStripes; ++s) {
            Stripe<T> one;
            one.load(row, base + s * Stripe<T>::kColumns, vocab, aligned);
            put(one, s);
        }
    }

    RS_DEVICE void leave_out(int named, int tile) {
        const int base = tile * kTileColumns<T>;
        if (!__any_sync(kAll, named >= base && named < base + kTileColumns<T>)) return;
#pragma unroll 1
        for (int s = 0; s < kStripes; ++s) {
            Stripe<T> one = pick(s);
            one.leave_out(named, base + s * Stripe<T>::kColumns);
            put(one, s);
        }
    }

    RS_DEVICE float largest() const {
        u32 most = stripes[0].larger();
#pragma unroll
        for (int s = 1; s < kStripes; ++s) most = T::larger(most, stripes[s].larger());
        return T::largest(most);
    }

    // One of the stripes, where code that is seldom run should be small: registers have no index.
    RS_DEVICE Stripe<T> pick(int stripe) const {
        Stripe<T> picked = stripes[0];
#pragma unroll
        for (int s = 1; s < kStripes; ++s) {
#pragma unroll
            for (int i = 0; i < 4; ++i) picked.raw.w[i] = stripe == s ? stripes[s].raw.w[i] : picked.raw.w[i];
        }
        return picked;
    }
    RS_DEVICE void put(const Stripe<T>& stripe, int at) {
#pragma unroll
        for (int s = 0; s < kStripes; ++s) {
#pragma unroll
            for (int i = 0; i < 4; ++i) stripes[s].raw.w[i] = at == s ? stripe.raw.w[i] : stripes[s].raw.w[i];
        }
    }

    // The first column, within the tile, of its largest element; the same in every lane.
    RS_DEVICE u32 first_of(float largest) const {
        // Infinity is as large as the largest number, NaN is the least.
        const float most = clean(largest);
        if (!(most > -infinity())) return 0;
        u32 at = kTileColumns<T>;
#pragma unroll
        for (int s = kStripes - 1; s >= 0; --s) {
#pragma unroll
            for (int j = T::kPerWords - 1; j >= 0; --j) {
                if (T::get(stripes[s].raw, j) >= most) at = s * Stripe<T>::kColumns + j;
            }
        }
        at += at < kTileColumns<T> ? (threadIdx.x % 32) * T::kPerWords : 0;
        return warp_reduce(at, Smaller());
    }

    // The largest, and the sum of 2^(scale * (x - largest)); the same in every lane.
    RS_DEVICE TileStats sum(float scale) const {
        float mine = largest(), sum = 0.0f;
        // A lane of nothing but -inf must not subtract infinities.
        const float shift = -fmaxf(mine, -1e30f) * scale;
#pragma unroll
        for (int s = 0; s < kStripes; ++s) sum += stripes[s].sum(scale, shift);
        if (sum != sum) {
            mine = clean(mine);
            sum = 0.0f;
            const float reference = fmaxf(mine, -1e30f);
#pragma unroll 1
            for (int s = 0; s < kStripes; ++s) {
                pick(s).each(0, [&](float x, u32) { sum += fast_exp2((x - reference) * scale); });
            }
        }
        const float most = warp_reduce(mine, Larger());
        sum = most > -infinity() ? sum * fast_exp2((mine - most) * scale) : 0.0f;
        return {most, warp_reduce(sum, Plus())};
    }
};
