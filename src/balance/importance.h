// How much the last prompt queries attended to each token.
#pragma once

#include "core/view.h"
#include "kernels/kernels.h"

namespace kvsift {

// importance[i] += `share` of the softmax share of token i, for one query that sees `tokens`
// tokens. `row`: [tokens].
void add_importance(const Kernels &kernels, const HeadRows &keys, std::uint32_t dim, float scale,
                    const float *query, std::uint32_t tokens, float share, float *row,
                    float *importance);

}  // namespace kvsift
