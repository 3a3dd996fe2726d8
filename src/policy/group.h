// Query heads that share a choice: their scores, made comparable, then averaged or maximised.
#pragma once

#include "methods/method.h"

namespace kvsift {

// scores: [group][stride], `count` each. Where the KV head shares one choice, row 0 receives the mean or maximum of the
// query heads' scores, softmaxed first where they are logarithms: raw ones would let the loudest head decide. Returns
// what the scores then are.
ScoreKind reduce_group(const HeadState &head, ScoreKind kind, std::uint32_t count, float *scores, std::uint64_t stride);

// The same for rows that are shares already: out[i] = mean or max over the group.
void reduce_rows(const HeadState &head, const float *rows, std::uint64_t stride, std::uint32_t count, float *out);

}  // namespace kvsift
