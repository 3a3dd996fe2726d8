// The k best of n scores, ties to the lower index, in ascending order of index.
#pragma once

#include <cstdint>

#include "kernels/kernels.h"

namespace kvsift {

// Orders scores as `top_blocks` does: a larger score has a larger key, -0 that of 0.
std::uint32_t score_key(float score);

// Writes min(k, count) of the indices begin .. begin + count - 1 of `scores` to `out`; returns how many. NaN is never taken.
std::uint32_t top_blocks(const Kernels &kernels, const float *scores, std::uint32_t begin, std::uint32_t count,
                         std::uint32_t k, std::uint32_t *out);

}  // namespace kvsift
