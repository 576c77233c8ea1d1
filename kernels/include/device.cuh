// What the kernels need of a compiler: nvcc, NVRTC without any header, or a host compiler that runs
// threads as fibers (tests/support/emulated).
#pragma once

using u32 = unsigned int;
using u64 = unsigned long long;
using i64 = long long;

#define RS_DEVICE __device__ __forceinline__

constexpr u32 kAll = 0xffffffffu;
constexpr float kLog2E = 1.4426950408889634f;

RS_DEVICE float infinity() { return __int_as_float(0x7f800000); }

// 2^x as the special function unit computes it: 2 ulp, and 0 below 2^-126.
RS_DEVICE float fast_exp2(float x) {
#ifdef RAYSPEC_HOST
    return exp2f(x);
#else
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#endif
}

struct alignas(16) Words {
    u32 w[4];
};

// 16 bytes that nothing writes while the kernel runs, and that are read once.
RS_DEVICE Words load_words(const void* address) {
#ifdef RAYSPEC_HOST
    return *static_cast<const Words*>(address);
#else
    Words v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
        : "=r"(v.w[0]), "=r"(v.w[1]), "=r"(v.w[2]), "=r"(v.w[3])
        : "l"(address));
    return v;
#endif
}

// What the kernel before has written, looked at where this stands and not where it is used.
RS_DEVICE Words load_now(const void* address) {
#ifdef RAYSPEC_HOST
    return *static_cast<const Words*>(address);
#else
    Words v;
    asm volatile("ld.volatile.global.v4.u32 {%0, %1, %2, %3}, [%4];"
        : "=r"(v.w[0]), "=r"(v.w[1]), "=r"(v.w[2]), "=r"(v.w[3])
        : "l"(address)
        : "memory");
    return v;
#endif
}
RS_DEVICE int load_now(const int* address) {
#ifdef RAYSPEC_HOST
    return *address;
#else
    int v;
    asm volatile("ld.volatile.global.s32 %0, [%1];" : "=r"(v) : "l"(address) : "memory");
    return v;
#endif
}

// Eight bytes that another block has written: past the multiprocessor's own cache.
template <typename V>
RS_DEVICE V load_from_others(const V* address) {
    static_assert(sizeof(V) == 8, "eight bytes");
#ifdef RAYSPEC_HOST
    return *address;
#else
    union {
        u64 bits;
        V value;
    } word;
    asm volatile("ld.global.cg.u64 %0, [%1];" : "=l"(word.bits) : "l"(address) : "memory");
    return word.value;
#endif
}

// Adds one and returns how many there were. What this thread has seen written is seen by whoever
// counts after it: a fence on both sides, weaker and quicker than __threadfence.
RS_DEVICE int count_in(int* counter) {
#ifdef RAYSPEC_HOST
    return (*counter)++;
#else
    int before;
    asm volatile("atom.acq_rel.gpu.global.add.s32 %0, [%1], 1;" : "=r"(before) : "l"(counter) : "memory");
    return before;
#endif
}

// Adds 64 bits in shared memory, where the hardware has atomic additions of 32: the carry of the
// lower half goes to the upper one.
RS_DEVICE void add_shared(u64* sum, u64 value) {
    u32* halves = reinterpret_cast<u32*>(sum);
    const u32 low = static_cast<u32>(value);
    const u32 before = low ? atomicAdd(&halves[0], low) : 0;
    const u32 high = static_cast<u32>(value >> 32) + (before + low < low ? 1u : 0u);
    if (high) atomicAdd(&halves[1], high);
}

// Programmatic dependent launch. The kernel after this one may start, and this one must not use
// what the one before wrote until that has ended. Nothing at all before sm_90.
RS_DEVICE void let_next_start() {
#if !defined(RAYSPEC_HOST) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
RS_DEVICE void wait_for_previous() {
#if !defined(RAYSPEC_HOST) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// NaN counts as -inf and +inf as the largest number: such rows still name a token.
RS_DEVICE float clean(float x) { return x != x ? -infinity() : fminf(x, 3.4028234e38f); }

// Unsigned integers in the order of the floats they stand for.
RS_DEVICE u32 key_of(float x) {
    const u32 bits = __float_as_uint(x + 0.0f);  // -0 is 0
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

RS_DEVICE float float_of(u32 key) {
    return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

// Of pairs of 16-bit numbers the larger ones; of a number and NaN the number.
#ifndef RAYSPEC_HOST
RS_DEVICE u32 larger_pair_bfloat16(u32 a, u32 b) {
    u32 y;
    asm("max.bf16x2 %0, %1, %2;" : "=r"(y) : "r"(a), "r"(b));
    return y;
}
RS_DEVICE u32 larger_pair_float16(u32 a, u32 b) {
    u32 y;
    asm("max.f16x2 %0, %1, %2;" : "=r"(y) : "r"(a), "r"(b));
    return y;
}
#endif

// Element types: how many 16-byte words hold, what each is as a float, and how many of the float's
// lowest bits say nothing: keys of different values differ by more than 2^spare - 1. Of float16's
// values the subnormal ones are further apart.
struct Float32 {
    using Storage = u32;
    static constexpr int kPerWords = 4;
    static constexpr u32 kLowest = 0xff800000u;
    static constexpr int kSpareBits = 0;
    static RS_DEVICE float get(const Words& v, int j) { return __uint_as_float(v.w[j]); }
    static RS_DEVICE void set(Words& v, int j, u32 bits) { v.w[j] = bits; }
    static RS_DEVICE float value(u32 bits) { return __uint_as_float(bits); }
    static RS_DEVICE u32 larger(u32 a, u32 b) {
        return __float_as_uint(fmaxf(__uint_as_float(a), __uint_as_float(b)));
    }
    static RS_DEVICE float largest(u32 word) { return __uint_as_float(word); }
};

template <typename Half>
struct Packed16 {
    using Storage = unsigned short;
    static constexpr int kPerWords = 8;
    static RS_DEVICE u32 bits(const Words& v, int j) { return (v.w[j / 2] >> (16 * (j % 2))) & 0xffffu; }
    static RS_DEVICE float get(const Words& v, int j) { return Half::value(bits(v, j)); }
    static RS_DEVICE void set(Words& v, int j, u32 bits) {
        const u32 shift = 16 * (j % 2);
        v.w[j / 2] = (v.w[j / 2] & ~(0xffffu << shift)) | (bits << shift);
    }
    // Of two words, each a pair of elements, the larger ones: twice as many at a time.
    static RS_DEVICE u32 larger(u32 a, u32 b) {
#ifdef RAYSPEC_HOST
        const auto pick = [](u32 x, u32 y) {
            const float p = Half::value(x), q = Half::value(y);
            return p != p || q > p ? y : x;
        };
        return pick(a & 0xffffu, b & 0xffffu) | pick(a >> 16, b >> 16) << 16;
#else
        return Half::larger_pair(a, b);
#endif
    }
    static RS_DEVICE float largest(u32 word) {
        return fmaxf(Half::value(word & 0xffffu), Half::value(word >> 16));
    }
};

struct BFloat16 : Packed16<BFloat16> {
    static constexpr u32 kLowest = 0xff80u;
    static constexpr int kSpareBits = 16;
#ifndef RAYSPEC_HOST
    static RS_DEVICE u32 larger_pair(u32 a, u32 b) { return larger_pair_bfloat16(a, b); }
#endif
    static RS_DEVICE float value(u32 bits) { return __uint_as_float(bits << 16); }
    // The upper of a pair is a float but for bits that must not count.
    static RS_DEVICE float get(const Words& v, int j) {
        return __uint_as_float(j % 2 ? v.w[j / 2] & 0xffff0000u : v.w[j / 2] << 16);
    }
};

struct Float16 : Packed16<Float16> {
    static constexpr u32 kLowest = 0xfc00u;
    static constexpr int kSpareBits = 13;
#ifndef RAYSPEC_HOST
    static RS_DEVICE u32 larger_pair(u32 a, u32 b) { return larger_pair_float16(a, b); }
#endif
    static RS_DEVICE float value(u32 bits) {
#ifdef RAYSPEC_HOST
        return host_half(bits);
#else
        float y;
        asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(static_cast<unsigned short>(bits)));
        return y;
#endif
    }
};
