// What the kernels are given and what they tell each other. rayspec/ops/launch.py packs
// `Arguments` and lays out the workspace.
#pragma once

#include "random.cuh"

// What is known of a row of logits before it is read: 64 bytes, written by `prepare`.
struct alignas(16) Row {
    // `read_rows` looks at the first 16 bytes alone.
    float scale;        // log2(e) / temperature; 0 is greedy
    int draft;          // the token that this row tests; -1 for none
    int request;        // -1: nobody's row
    int place;          // which of its request's rows this is
    int count;          // how many rows its request has
    int top_k;          // vocabulary size where there is no limit
    float top_p;        // 1 where there is no limit
    float min_p;        // 0 where there is no limit
    float temperature;
    u32 position;
    u64 seed;
    u32 step;
    int truncated;      // whether any of the limits is there
    int spare[2];

    RS_DEVICE Stream stream() const { return {seed, position, step}; }
    RS_DEVICE bool greedy() const { return scale == 0.0f; }
};

// Tokens that the draft could have said, with its probabilities: the residual differs from the
// target's distribution in these only, so they are left out of a row's sums and looked at one by
// one. A draft without a distribution is one named token of probability 1. Greedy rows name none.
constexpr int kMostNamed = 32;

struct alignas(8) Verdict {
    int token;     // what the row gives
    int accepted;  // whether that is its draft, and the next row counts too
};

// A tile's largest logit, and the sum of 2^(scale * (x - largest)); of a greedy row's tile the
// first column of its largest, within the tile.
struct alignas(8) TileStats {
    float largest;
    float sum;
};

// What a rank knows of a row from its shard of the vocabulary, the draft left out.
struct alignas(16) Summary {
    double sum;      // of 2^(scale * (x - largest))
    float largest;
    float draft;     // the draft's logit; -inf where it is another rank's
    float score;     // of the token that would win within the shard, with `largest` as 0
    int token;       // that token; -1 for none
    int spare[2];
};

struct Arguments {
    Row* rows;
    Verdict* verdicts;
    int* named_ids;
    float* named_q;
    int* requests_done;
    int* rows_done;
    TileStats* stats;
    Summary* summaries;  // null unless the logits are a shard

    const void* logits;
    const int* draft_ids;
    const unsigned char* invalid;
    const int* num_valid;
    const int* starts;
    const int* slots;
    const float* temperature;
    const int* top_k;
    const float* top_p;
    const float* min_p;
    const i64* seeds;
    const i64* positions;
    const i64* step;
    const int* q_ids;
    const float* q_logits;
    i64* sampled;
    int* num_sampled;

    i64 stride;  // of logits, in elements
    i64 q_slot_stride, q_place_stride;
    int num_rows, num_requests;
    int places;        // the most rows of a request, and the width of `sampled`
    int vocab, tiles;  // of the logits that are here
    int named_count;
    int parts, run;                           // blocks of a row, and tiles of each of their warps
    int shards, first_column, first_tile;     // where a shard lies in the vocabulary
    int whole_vocab;
    int apart;  // whether a kernel of its own decides the rows
    int spare;
};

// Whether this block is the last of `count` to get here. What they wrote before is seen after.
RS_DEVICE bool last_to_arrive(int* counter, int count, int* told) {
    __syncthreads();
    if (threadIdx.x == 0) *told = count_in(counter) + 1 == count;
    __syncthreads();
    return *told != 0;
}
