// Exact causal attention of many query rows, in tiles.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/view.h"
#include "kernels/kernels.h"

namespace kvsift {

// The last `rows` of `tokens` tokens ask: row r sees tokens [0, tokens - rows + r + 1).
struct Prefill {
  const Kernels *kernels;
  const kvsift_view *queries;  // token stride over the rows, head stride over query heads
  std::uint32_t first_query_head;
  std::uint32_t group;
  std::uint32_t dim;
  float scale;
  HeadRows keys, values;
  std::uint32_t tokens, rows;
  float *out;  // row r of group member g at out + r * out_row_stride + g * dim
  std::size_t out_row_stride;
};

// Each row's bits are those of `attend` over [0, its length).
void prefill_attend(const Prefill &job);

// Queries of row r as attend and attend_row want them: [group][padded_dim(dim)].
void prefill_queries(const Prefill &job, std::uint32_t row, float *queries);

}  // namespace kvsift
