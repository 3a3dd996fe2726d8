// Kernels of exact attention over rows that lie at one stride.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/view.h"

namespace kvsift {

// Rows that the next call will read; asked for on the way, since a cache's rows lie where the
// hardware does not foresee.
struct Ahead {
  Rows rows;            // a list where the rows worked on are one
  std::uint32_t count;  // 0: none
  std::uint32_t bytes;  // of a row
};

// Queries and accumulators are [group][padded_dim(dim)] float, the queries' padding zero.
struct AttentionKernels {
  // logits[g * stride + i] = scale * (query g . row i)
  void (*dot_rows)(const float *queries, std::uint32_t group, const Rows &rows, std::uint32_t count,
                   std::uint32_t dim, float scale, float *logits, std::size_t stride);
  void (*dot_rows_ahead)(const float *queries, std::uint32_t group, const Rows &rows,
                         std::uint32_t count, std::uint32_t dim, float scale, float *logits,
                         std::size_t stride, const Ahead &ahead);
  // row[i] = exp(row[i] - max); returns the sum, lane i adding elements i, i + 16, ...
  float (*softmax)(float *row, std::size_t count, float max);
  // acc[g] = fma(weights[g * stride + i], row i, acc[g]), i ascending
  void (*weighted_sum)(const float *weights, std::size_t stride, std::uint32_t group,
                       const Rows &rows, std::uint32_t count, std::uint32_t dim, float *acc);
  void (*weighted_sum_ahead)(const float *weights, std::size_t stride, std::uint32_t group,
                             const Rows &rows, std::uint32_t count, std::uint32_t dim, float *acc,
                             const Ahead &ahead);
  // For tokens first .. first + count - 1 of `row`, cut into blocks at multiples of block_tokens;
  // out[0] is the block that `first` lies in: out = max(out, row), or out + the block's sum of row.
  void (*block_max)(const float *row, std::uint32_t first, std::uint32_t count,
                    std::uint32_t block_tokens, float *out);
  void (*block_sum)(const float *row, std::uint32_t first, std::uint32_t count,
                    std::uint32_t block_tokens, float *out);
};

}  // namespace kvsift
