// Counter-based randomness: a draw is a pure function of its key, so every rank draws the same.
#pragma once

#include "device.cuh"

// What a draw decides. The same numbers are in rayspec/ops/reference.py.
enum Domain : u32 { kAccept = 0, kTile = 1, kToken = 2, kNamed = 3 };

struct Stream {
    u64 seed;
    u32 position;
    u32 step;

    // Philox 4x32-10 (Salmon et al. 2011), its first word.
    RS_DEVICE u32 bits(Domain domain, u32 index) const {
        u32 c0 = index, c1 = domain, c2 = position, c3 = step;
        u32 k0 = static_cast<u32>(seed), k1 = static_cast<u32>(seed >> 32);
#pragma unroll
        for (int round = 0; round < 10; ++round) {
            const u64 p0 = static_cast<u64>(0xd2511f53u) * c0;
            const u64 p1 = static_cast<u64>(0xcd9e8d57u) * c2;
            c0 = static_cast<u32>(p1 >> 32) ^ c1 ^ k0;
            c1 = static_cast<u32>(p1);
            c2 = static_cast<u32>(p0 >> 32) ^ c3 ^ k1;
            c3 = static_cast<u32>(p0);
            k0 += 0x9e3779b9u;
            k1 += 0xbb67ae85u;
        }
        return c0;
    }

    // In (0, 1), all 32 bits of it.
    RS_DEVICE double uniform(Domain domain, u32 index) const {
        return (bits(domain, index) + 0.5) * 2.3283064365386963e-10;
    }

    // log2 of an exponential variate: the entry with the largest log2(weight) - noise wins with a
    // probability in proportion to its weight. Small variates, which win, have full resolution.
    RS_DEVICE float noise(Domain domain, u32 index) const {
        return log2f(-log1pf(-static_cast<float>(uniform(domain, index))));
    }
};
