// How a warp reads a row: in stripes of 16 bytes a lane, four to a tile of 2 KB. Which columns a
// tile spans depends on the element type only, not on where the row lies.
#pragma once

#include "device.cuh"

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
        float most = -infinity();
#pragma unroll
        for (int j = 0; j < kPer; ++j) most = fmaxf(most, T::get(raw, j));
        return most;
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

// f(value, column) for every element of a tile but the named ones, by a whole warp. For tiles that
// are looked at again: one stripe at a time keeps the code small.
template <typename T, typename F>
RS_DEVICE void each_of_tile(
    const typename T::Storage* row, int tile, int vocab, bool aligned, int named, F f) {
#pragma unroll 1
    for (int s = 0; s < kStripes; ++s) {
        const int base = tile * kTileColumns<T> + s * Stripe<T>::kColumns;
        if (base >= vocab) return;
        Stripe<T> stripe;
        stripe.load(row, base, vocab, aligned);
        stripe.leave_out(named, base);
        stripe.each(base, f);
    }
}
