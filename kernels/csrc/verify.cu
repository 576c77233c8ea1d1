// Verification of draft tokens: rows are described, read once and decided.
// kernels/README.md tells the algorithm; rayspec/ops/reference.py does the same in torch.
#include "shards.cuh"
#include "truncated.cuh"

// Blocks that a multiprocessor holds; registers follow from it.
#ifndef RAYSPEC_READ_BLOCKS
#define RAYSPEC_READ_BLOCKS 4
#endif
#ifndef RAYSPEC_TRUNCATE_BLOCKS
#define RAYSPEC_TRUNCATE_BLOCKS 3
#endif

// Everything by request (B) or by slot (S) that rows need, gathered once: sampling parameters may
// lie in host memory, where each look costs a microsecond. Block (b, i): row i of request b.
extern "C" __global__ void __launch_bounds__(32) rayspec_prepare(const __grid_constant__ Arguments a) {
    // The next kernel reads logits meanwhile, and nothing of this one's before it has ended.
    let_next_start();
    const int request = blockIdx.x, place = blockIdx.y, lane = threadIdx.x;
    const int start = a.starts[request], count = a.starts[request + 1] - start, vocab = a.whole_vocab;
    if (place == 0 && lane == 0) a.requests_done[request] = 0;
    if (place == 0 && request == 0) {
        // Rows of nobody, and rows of requests that have more than drafts can be.
        for (int r = a.starts[gridDim.x] + lane; r < a.num_rows; r += 32) a.rows[r].request = -1;
    }
    if (place + 1 == int(gridDim.y)) {
        for (int r = place + 1 + lane; r < count; r += 32) a.rows[start + r].request = -1;
    }
    if (place >= count) return;
    const int index = start + place, slot = a.slots[request];
    Row row = {};
    row.request = request;
    row.place = place;
    row.count = Smaller()(u32(count), gridDim.y);
    row.temperature = a.temperature[slot];
    row.scale = row.temperature > 0.0f ? kLog2E / row.temperature : 0.0f;
    row.top_k = a.top_k ? a.top_k[slot] : vocab;
    if (row.top_k <= 0 || row.top_k > vocab) row.top_k = vocab;
    row.top_p = a.top_p ? a.top_p[slot] : 1.0f;
    row.min_p = a.min_p ? a.min_p[slot] : 0.0f;
    row.truncated = !row.greedy() && (row.top_k < vocab || row.top_p < 1.0f || row.min_p > 0.0f);
    row.seed = u64(a.seeds[slot]);
    row.position = u32(a.positions[index]);
    row.step = u32(a.step[0]);
    row.draft = -1;
    if (place + 1 < row.count) {
        const int draft = a.draft_ids[index + 1];
        const bool valid = draft >= 0 && draft < vocab && (!a.invalid || !a.invalid[index + 1]) &&
                           (!a.num_valid || place < a.num_valid[request]);
        if (valid) row.draft = draft;
    }
    if (lane == 0) {
        a.rows[index] = row;
        a.rows_done[index] = 0;
    }
    int id = lane == 0 && !row.greedy() ? row.draft : -1;
    float q = 1.0f;
    if (a.q_ids && row.draft >= 0 && !row.greedy()) {
        const i64 at = slot * a.q_slot_stride + place * a.q_place_stride + lane;
        int named = lane < a.named_count ? a.q_ids[at] : -1;
        const float logit = lane < a.named_count ? a.q_logits[at] : 0.0f;
        if (named < 0 || named >= vocab || !(fabsf(logit) < infinity())) named = -1;
        // Of a token that is named twice the last counts.
        for (int other = 1; other < a.named_count; ++other) {
            const int theirs = __shfl_sync(kAll, named, other);
            if (lane < other && theirs == named) named = -1;
        }
        // A draft that is not among its own tokens could have been no other.
        if (__any_sync(kAll, named == row.draft)) {
            const float most = warp_reduce(named < 0 ? -infinity() : logit, Larger());
            const float weight = named < 0 ? 0.0f : expf(logit - most);
            id = named;
            q = float(double(weight) / warp_reduce(double(weight), Plus()));
        }
    }
    if (lane < a.named_count) {
        a.named_ids[i64(index) * a.named_count + lane] = id;
        a.named_q[i64(index) * a.named_count + lane] = q;
    }
}

// The one read of the logits, named tokens left out. Block x: part x % parts of row x / parts. The
// last of a row's blocks decides the row unless a kernel of its own does.
template <typename T>
RS_DEVICE void read_rows(const Arguments& a) {
    __shared__ Scratch scratch;
    __shared__ int last;
    let_next_start();
    const i64 index = blockIdx.x / a.parts;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int first = (blockIdx.x % a.parts) * kWarps * a.run + warp;
    const int end = Smaller()(u32(first - warp + kWarps * a.run), u32(a.tiles));
    const auto* logits = static_cast<const typename T::Storage*>(a.logits) + index * a.stride;
    const bool aligned = aligned16<T>(logits);
    Tile<T> next;
    if (first < end) next.load(logits, first, a.vocab, aligned);
    wait_for_previous();
    // Looks at what describes the row, all at once.
    const Words known = load_now(a.rows + index);
    int named = lane < a.named_count ? load_now(a.named_ids + index * a.named_count + lane) : -1;
    const float scale = __uint_as_float(known.w[0]);
    if (int(known.w[2]) < 0) return;
    named -= named < 0 ? 0 : a.first_column;
    const auto describe = [&](Tile<T>& tile, int t) {
        TileStats stats;
        if (scale == 0.0f) {
            stats.largest = warp_reduce(tile.largest(), Larger());
            stats.sum = __uint_as_float(tile.first_of(stats.largest));
        } else {
            tile.leave_out(named, t);
            stats = tile.sum(scale);
        }
        if (lane == 0) a.stats[index * a.tiles + t] = stats;
    };
    for (int t = first; t < end; t += kWarps) {
        Tile<T> tile = next;
        if (t + kWarps < end) next.load(logits, t + kWarps, a.vocab, aligned);
        describe(tile, t);
    }
    if (a.apart) return;
    // What only the last block needs, looked at while it is found out which one that is.
    const Row row = a.rows[index];
    Resolver<T> resolver = Resolver<T>::of(a, index, row, &scratch);
    if (!last_to_arrive(&a.rows_done[index], a.parts, &last)) return;
    resolver.begin();
    if (a.summaries) {
        const Summary summary = resolver.summary();
        if (threadIdx.x == 0) a.summaries[index] = summary;
    } else {
        finish(a, index, row, resolver.run());
    }
}

// A block to a row, after all rows were read.
template <typename T>
RS_DEVICE void resolve_rows(const Arguments& a) {
    __shared__ SearchMemory memory;
    wait_for_previous();
    const i64 index = blockIdx.x;
    const Row row = a.rows[index];
    Resolver<T> resolver = Resolver<T>::of(a, index, row, &memory.scratch);
    resolver.begin();
    if (row.request < 0) return;
    finish(a, index, row, row.truncated ? TruncatedResolver<T>{resolver, &memory}.run() : resolver.run());
}

#define RAYSPEC_KERNELS(NAME, T)                                                                        \
    extern "C" __global__ void __launch_bounds__(kThreads, RAYSPEC_READ_BLOCKS)                        \
        rayspec_read_rows_##NAME(const __grid_constant__ Arguments a) {                                \
        read_rows<T>(a);                                                                               \
    }                                                                                                  \
    extern "C" __global__ void __launch_bounds__(kThreads, RAYSPEC_TRUNCATE_BLOCKS)                    \
        rayspec_resolve_rows_##NAME(const __grid_constant__ Arguments a) {                        \
        resolve_rows<T>(a);                                                                        \
    }

RAYSPEC_KERNELS(bfloat16, BFloat16)
RAYSPEC_KERNELS(float16, Float16)
RAYSPEC_KERNELS(float32, Float32)

// A warp to a request, after the shards' summaries were gathered.
extern "C" __global__ void __launch_bounds__(32) rayspec_combine(const __grid_constant__ Arguments a) {
    combine(a);
}
