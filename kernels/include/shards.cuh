// Puts together what the shards of a vocabulary say of a request's rows, the same on every rank.
#pragma once

#include "rows.cuh"

// A lane's row: as Resolver does for a whole vocabulary, with certain drafts.
RS_DEVICE Verdict combine_row(const Summary* summaries, int num_rows, int shards, i64 index, const Row& row) {
    const int draft = row.draft < 0 ? 0 : row.draft;
    float largest = -infinity(), drafted = -infinity();
    for (int r = 0; r < shards; ++r) {
        const Summary& s = summaries[i64(r) * num_rows + index];
        largest = fmaxf(largest, s.largest);
        drafted = fmaxf(drafted, s.draft);
    }
    if (row.greedy()) {
        // Shards come in the order of their tokens: the first wins a tie.
        for (int r = 0; r < shards; ++r) {
            const Summary& s = summaries[i64(r) * num_rows + index];
            if (s.largest == largest) return {s.token, largest > -infinity() && s.token == row.draft};
        }
        return {0, 0};
    }
    largest = fmaxf(largest, drafted);
    if (!(largest > -infinity())) return {0, 0};
    double total = 0.0;
    float best = -infinity();
    int token = -1;
    for (int r = 0; r < shards; ++r) {
        const Summary& s = summaries[i64(r) * num_rows + index];
        if (s.token < 0) continue;
        const float exponent = (s.largest - largest) * row.scale;
        total += s.sum * double(fast_exp2(exponent));
        if (s.score + exponent > best) {
            best = s.score + exponent;
            token = s.token;
        }
    }
    const float weight = drafted > -infinity() ? fast_exp2((drafted - largest) * row.scale) : 0.0f;
    total += weight;
    const bool accepted = row.draft >= 0 && double(weight) > row.stream().uniform(kAccept, 0) * total;
    return {token < 0 ? draft : token, accepted};
}

// A warp to a request: its tokens up to the first rejected draft.
RS_DEVICE void combine(const Arguments& a) {
    const int request = blockIdx.x, lane = threadIdx.x;
    const i64 first = a.starts[request];
    const int have = a.starts[request + 1] - int(first), count = have < a.places ? have : a.places;
    i64* out = a.sampled + i64(request) * a.places;
    int n = 0;
    for (int at = 0; at < a.places; at += 32) {
        const int place = at + lane;
        const bool counts = n == at && place < count;
        Verdict verdict = {-1, 0};
        if (counts) {
            const Row row = a.rows[first + place];
            verdict = combine_row(a.summaries, a.num_rows, a.shards, first + place, row);
            if (verdict.accepted) verdict.token = row.draft;
        }
        const u32 ends = __ballot_sync(kAll, !verdict.accepted);
        if (n == at) n += ends ? __ffs(ends) - 1 : 32;
        if (place < a.places) out[place] = place <= n && counts ? verdict.token : -1;
    }
    if (lane == 0) a.num_sampled[request] = n + 1;
}
