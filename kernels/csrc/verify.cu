// Verification of draft tokens in three launches: rows are described, read once, and resolved.
// kernels/README.md tells the algorithm; rayspec/ops/reference.py does the same in torch.
#include "resolve.cuh"

constexpr int kStatsThreads = 256;

extern "C" {

// Everything by request (B) or by slot (S) that rows need, gathered once: sampling parameters may
// lie in host memory, where each look costs a microsecond. Block (b, i): row i of request b.
__global__ void __launch_bounds__(32) rayspec_prepare(
    Row* rows, int* named_ids, float* named_q, int* done, int num_rows, int named_count, int vocab,
    const int* draft_ids, const unsigned char* invalid, const int* num_valid, const int* starts,
    const int* slots, const float* temperature, const int* top_k, const float* top_p, const float* min_p,
    const i64* seeds, const i64* positions, const i64* step, const int* q_ids, const float* q_logits,
    i64 q_slot_stride, i64 q_place_stride) {
    const int request = blockIdx.x, place = blockIdx.y, lane = threadIdx.x;
    const int start = starts[request], count = starts[request + 1] - start;
    if (place == 0 && lane == 0) done[request] = 0;
    if (place == 0 && request == 0) {
        // Rows of nobody, and rows of requests that have more than drafts can be.
        for (int r = starts[gridDim.x] + lane; r < num_rows; r += 32) rows[r].request = -1;
    }
    if (place + 1 == int(gridDim.y)) {
        for (int r = place + 1 + lane; r < count; r += 32) rows[start + r].request = -1;
    }
    if (place >= count) return;
    const int index = start + place, slot = slots[request];
    Row row = {};
    row.request = request;
    row.place = place;
    row.count = Smaller()(u32(count), gridDim.y);
    row.temperature = temperature[slot];
    row.scale = row.temperature > 0.0f ? kLog2E / row.temperature : 0.0f;
    row.top_k = top_k ? top_k[slot] : vocab;
    if (row.top_k <= 0 || row.top_k > vocab) row.top_k = vocab;
    row.top_p = top_p ? top_p[slot] : 1.0f;
    row.min_p = min_p ? min_p[slot] : 0.0f;
    row.seed = u64(seeds[slot]);
    row.position = u32(positions[index]);
    row.step = u32(step[0]);
    row.draft = -1;
    if (place + 1 < row.count) {
        const int draft = draft_ids[index + 1];
        const bool valid = draft >= 0 && draft < vocab && (!invalid || !invalid[index + 1]) &&
                           (!num_valid || place < num_valid[request]);
        if (valid) row.draft = draft;
    }
    if (lane == 0) rows[index] = row;
    int id = lane == 0 ? row.draft : -1;
    float q = 1.0f;
    if (q_ids && row.draft >= 0 && !row.greedy()) {
        const i64 at = slot * q_slot_stride + place * q_place_stride + lane;
        int named = lane < named_count ? q_ids[at] : -1;
        const float logit = lane < named_count ? q_logits[at] : 0.0f;
        if (named < 0 || named >= vocab || !(fabsf(logit) < infinity())) named = -1;
        // Of a token that is named twice the last counts.
        for (int other = 1; other < named_count; ++other) {
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
    if (lane < named_count) {
        named_ids[i64(index) * named_count + lane] = id;
        named_q[i64(index) * named_count + lane] = q;
    }
}

}  // extern "C"

// The one read of the logits: every tile's largest and its sum, named tokens left out.
template <typename T>
RS_DEVICE void row_stats(
    const typename T::Storage* logits, i64 stride, int vocab, int tiles, int run, const Row* rows,
    const int* named_ids, int named_count, TileStats* stats) {
    const int per_block = (kStatsThreads / 32) * run, per_row = (tiles + per_block - 1) / per_block;
    const i64 index = blockIdx.x / per_row;
    const int lane = threadIdx.x % 32;
    const int first = (blockIdx.x % per_row) * per_block + threadIdx.x / 32 * run;
    const int last = first + run < tiles ? first + run : tiles;
    if (first >= last || rows[index].request < 0) return;
    const typename T::Storage* row = logits + index * stride;
    const bool aligned = aligned16<T>(row);
    const float scale = rows[index].scale;
    const int named = lane < named_count ? named_ids[index * named_count + lane] : -1;
    stats += index * tiles;
    for (int t = first; t < last; ++t) {
        const int base = t * kTileColumns<T>;
        Stripe<T> stripes[kStripes];
#pragma unroll
        for (int s = 0; s < kStripes; ++s) {
            stripes[s].load(row, base + s * Stripe<T>::kColumns, vocab, aligned);
        }
        if (__any_sync(kAll, named >= base && named < base + kTileColumns<T>)) {
#pragma unroll
            for (int s = 0; s < kStripes; ++s) {
                stripes[s].leave_out(named, base + s * Stripe<T>::kColumns);
            }
        }
        float mine = -infinity(), sum = 0.0f;
#pragma unroll
        for (int s = 0; s < kStripes; ++s) mine = fmaxf(mine, stripes[s].largest());
        if (scale != 0.0f) {
            // A lane of nothing but -inf must not subtract infinities.
            const float shift = -fmaxf(mine, -1e30f) * scale;
#pragma unroll
            for (int s = 0; s < kStripes; ++s) sum += stripes[s].sum(scale, shift);
            if (sum != sum) {
                mine = clean(mine);
                sum = 0.0f;
                const float reference = fmaxf(mine, -1e30f);
#pragma unroll
                for (int s = 0; s < kStripes; ++s) {
                    stripes[s].each(0, [&](float x, u32) { sum += fast_exp2((x - reference) * scale); });
                }
            }
        }
        const float largest = warp_reduce(mine, Larger());
        if (scale != 0.0f) {
            sum = largest > -infinity() ? sum * fast_exp2((mine - largest) * scale) : 0.0f;
#pragma unroll
            for (int mask = 16; mask > 0; mask /= 2) sum += __shfl_xor_sync(kAll, sum, mask);
        }
        if (lane == 0) stats[t] = TileStats{largest, sum};
    }
}

// Walks a request's rows once all are resolved: drafts up to the first rejected one, then a token.
RS_DEVICE void finish(
    const Row& row, i64 index, Verdict* verdicts, Verdict mine, const Row* rows, int* done,
    i64* sampled, i64 sampled_stride, int* num_sampled) {
    verdicts[index] = mine;
    __threadfence();
    if (atomicAdd(&done[row.request], 1) + 1 != row.count) return;
    __threadfence();
    const i64 first = index - row.place;
    i64* out = sampled + row.request * sampled_stride;
    int n = 0;
    for (bool going = true; going; ++n) {
        const volatile Verdict* verdict = verdicts + first + n;
        going = verdict->accepted && n + 1 < row.count;
        out[n] = going ? rows[first + n].draft : verdict->token;
    }
    num_sampled[row.request] = n;
    for (; n < sampled_stride; ++n) out[n] = -1;
}

template <typename T>
RS_DEVICE void resolve(
    const typename T::Storage* logits, i64 stride, int vocab, int tiles, const Row* rows,
    const int* named_ids, const float* named_q, int named_count, const TileStats* stats,
    Verdict* verdicts, int* done, i64* sampled, i64 sampled_stride, int* num_sampled) {
    __shared__ SearchMemory memory;
    const i64 index = blockIdx.x;
    const Row row = rows[index];
    if (row.request < 0) return;
    const int lane = threadIdx.x % 32;
    const typename T::Storage* mine = logits + index * stride;
    const int named = lane < named_count ? named_ids[index * named_count + lane] : -1;
    const float q = lane < named_count ? named_q[index * named_count + lane] : 0.0f;
    const float x = named >= 0 ? clean(T::value(mine[named])) : -infinity();
    Resolver<T> resolver = {mine, stats + index * tiles, tiles, vocab, aligned16<T>(mine), row, &memory,
                            named, q, x};
    const Verdict verdict = resolver.run();
    if (threadIdx.x == 0) {
        finish(row, index, verdicts, verdict, rows, done, sampled, sampled_stride, num_sampled);
    }
}

#define RAYSPEC_KERNELS(NAME, T)                                                                        \
    extern "C" __global__ void __launch_bounds__(kStatsThreads, 4) rayspec_row_stats_##NAME(              \
        const T::Storage* logits, i64 stride, int vocab, int tiles, int run, const Row* rows,          \
        const int* named_ids, int named_count, TileStats* stats) {                                     \
        row_stats<T>(logits, stride, vocab, tiles, run, rows, named_ids, named_count, stats);          \
    }                                                                                                  \
    extern "C" __global__ void __launch_bounds__(kResolveThreads, 2) rayspec_resolve_##NAME(              \
        const T::Storage* logits, i64 stride, int vocab, int tiles, const Row* rows,                   \
        const int* named_ids, const float* named_q, int named_count, const TileStats* stats,           \
        Verdict* verdicts, int* done, i64* sampled, i64 sampled_stride, int* num_sampled) {            \
        resolve<T>(logits, stride, vocab, tiles, rows, named_ids, named_q, named_count, stats,         \
                   verdicts, done, sampled, sampled_stride, num_sampled);                              \
    }

RAYSPEC_KERNELS(bfloat16, BFloat16)
RAYSPEC_KERNELS(float16, Float16)
RAYSPEC_KERNELS(float32, Float32)
