// Runs CUDA kernels on a host: a block's threads are fibers that take turns at barriers and warp
// operations, blocks run one after the other. For x86-64 and for tests only.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#define RAYSPEC_HOST
#define __device__
#define __global__
#define __shared__ static
#define __grid_constant__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct Dim {
    unsigned x = 1, y = 1, z = 1;
};

struct Fiber {
    void* stack_pointer = nullptr;
    char* stack = nullptr;
    bool done = false;
};

struct Warp {
    uint64_t slots[32];
    int arrived = 0;
    unsigned turn = 0;
};

struct Block {
    std::vector<Fiber> fibers;
    std::vector<Warp> warps;
    void* scheduler = nullptr;
    int current = 0;
    int arrived = 0;
    unsigned turn = 0;
    void (*body)(void*) = nullptr;
    void* argument = nullptr;
};

inline Block g_block;
inline Dim blockIdx, gridDim, blockDim;

struct ThreadIndex {
    struct X {
        operator unsigned() const { return static_cast<unsigned>(g_block.current); }
    } x;
};
inline ThreadIndex threadIdx;

extern "C" void rs_switch(void** save, void* load);
asm(R"(
.text
.globl rs_switch
rs_switch:
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, (%rdi)
    mov %rsi, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret
)");

inline void yield() {
    Fiber& fiber = g_block.fibers[g_block.current];
    rs_switch(&fiber.stack_pointer, g_block.scheduler);
}

inline void fiber_main() {
    g_block.body(g_block.argument);
    g_block.fibers[g_block.current].done = true;
    yield();
    std::abort();
}

inline void __syncthreads() {
    const unsigned turn = g_block.turn;
    if (++g_block.arrived == static_cast<int>(g_block.fibers.size())) {
        g_block.arrived = 0;
        ++g_block.turn;
        return;
    }
    while (g_block.turn == turn) yield();
}

inline void warp_barrier(Warp& warp) {
    const unsigned turn = warp.turn;
    if (++warp.arrived == 32) {
        warp.arrived = 0;
        ++warp.turn;
        return;
    }
    while (warp.turn == turn) yield();
}

template <typename V, typename Read>
inline auto warp_exchange(V value, Read read) {
    static_assert(sizeof(V) <= 8);
    Warp& warp = g_block.warps[g_block.current / 32];
    std::memcpy(&warp.slots[g_block.current % 32], &value, sizeof(V));
    warp_barrier(warp);
    auto result = read([&](int lane) {
        V v;
        std::memcpy(&v, &warp.slots[lane], sizeof(V));
        return v;
    });
    warp_barrier(warp);
    return result;
}

template <typename V>
inline V __shfl_xor_sync(unsigned, V value, int mask) {
    const int lane = g_block.current % 32;
    return warp_exchange(value, [&](auto at) { return at(lane ^ mask); });
}
template <typename V>
inline V __shfl_sync(unsigned, V value, int source) {
    return warp_exchange(value, [&](auto at) { return at(source & 31); });
}
template <typename V>
inline V __shfl_up_sync(unsigned, V value, int delta) {
    const int lane = g_block.current % 32;
    return warp_exchange(value, [&](auto at) { return at(lane >= delta ? lane - delta : lane); });
}
inline unsigned __ballot_sync(unsigned, bool value) {
    return warp_exchange(value, [&](auto at) {
        unsigned bits = 0;
        for (int lane = 0; lane < 32; ++lane) bits |= unsigned(at(lane)) << lane;
        return bits;
    });
}
inline bool __all_sync(unsigned, bool value) { return __ballot_sync(~0u, value) == ~0u; }
inline bool __any_sync(unsigned, bool value) { return __ballot_sync(~0u, value) != 0; }

template <typename V, typename W>
inline V atomicAdd(V* at, W value) {
    const V old = *at;
    *at = old + V(value);
    return old;
}
inline unsigned atomicMin(unsigned* at, unsigned value) {
    const unsigned old = *at;
    *at = value < old ? value : old;
    return old;
}
inline void __threadfence() {}
inline void __syncwarp() {}
inline int __ffs(unsigned v) { return __builtin_ffs(int(v)); }
inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __clz(int v) { return v == 0 ? 32 : __builtin_clz(unsigned(v)); }

template <typename To, typename From>
inline To bits_as(From value) {
    To to;
    std::memcpy(&to, &value, sizeof(To));
    return to;
}
inline float __int_as_float(int v) { return bits_as<float>(v); }
inline float __uint_as_float(unsigned v) { return bits_as<float>(v); }
inline unsigned __float_as_uint(float v) { return bits_as<unsigned>(v); }
inline float host_half(unsigned bits) { return float(bits_as<_Float16>(static_cast<uint16_t>(bits))); }

template <typename... Params, size_t... I>
inline void call(void (*kernel)(Params...), void** arguments, std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_reference_t<Params>*>(arguments[I])...);
}

// Run a kernel over a grid; `arguments` point to the values of its parameters.
template <typename... Params>
inline void run_grid(void (*kernel)(Params...), Dim grid, unsigned threads, void** arguments) {
    constexpr size_t kStack = 256 << 10;
    struct Call {
        void (*kernel)(Params...);
        void** arguments;
    } once = {kernel, arguments};
    gridDim = grid;
    blockDim = {threads, 1, 1};
    g_block.fibers.assign(threads, {});
    char* stacks = static_cast<char*>(std::malloc(kStack * threads));
    for (blockIdx.y = 0; blockIdx.y < grid.y; ++blockIdx.y) {
        for (blockIdx.x = 0; blockIdx.x < grid.x; ++blockIdx.x) {
            g_block.warps.assign(threads / 32, {});
            g_block.arrived = 0;
            g_block.argument = &once;
            g_block.body = [](void* argument) {
                Call* c = static_cast<Call*>(argument);
                call(c->kernel, c->arguments, std::index_sequence_for<Params...>());
            };
            for (unsigned i = 0; i < threads; ++i) {
                Fiber& fiber = g_block.fibers[i];
                fiber.done = false;
                auto top = reinterpret_cast<uintptr_t>(stacks + kStack * (i + 1)) & ~uintptr_t(15);
                void** frame = reinterpret_cast<void**>(top) - 8;
                // Six registers, then where the first switch returns to.
                for (int r = 0; r < 6; ++r) frame[r] = nullptr;
                frame[6] = reinterpret_cast<void*>(&fiber_main);
                fiber.stack_pointer = frame;
            }
            for (bool alive = true; alive;) {
                alive = false;
                for (unsigned i = 0; i < threads; ++i) {
                    if (g_block.fibers[i].done) continue;
                    alive = true;
                    g_block.current = int(i);
                    rs_switch(&g_block.scheduler, g_block.fibers[i].stack_pointer);
                }
            }
        }
    }
    std::free(stacks);
}
