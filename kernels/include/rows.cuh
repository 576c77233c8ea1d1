// What is known of a row of logits before it is read: 64 bytes, written by `prepare`.
#pragma once

#include "random.cuh"

struct alignas(16) Row {
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
    int spare[3];

    RS_DEVICE Stream stream() const { return {seed, position, step}; }
    RS_DEVICE bool greedy() const { return scale == 0.0f; }
    RS_DEVICE bool truncated(int vocab) const { return top_k < vocab || top_p < 1.0f || min_p > 0.0f; }
};

// Tokens that the draft could have said, with its probabilities: the residual differs from the
// target's distribution in these only, so they are left out of a row's sums and looked at one by
// one. A draft without a distribution is one named token of probability 1.
constexpr int kMostNamed = 32;

struct Verdict {
    int token;     // what the row gives if its draft is rejected, or if it has none
    int accepted;  // whether its draft is accepted
};

// A tile's largest logit, and the sum of 2^(scale * (x - largest)).
struct alignas(8) TileStats {
    float largest;
    float sum;
};
