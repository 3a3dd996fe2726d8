#include "balance/importance.h"

namespace kvsift {

void add_importance(const Kernels &kernels, const HeadRows &keys, std::uint32_t dim, float scale,
                    const float *query, std::uint32_t tokens, float share, float *row,
                    float *importance) {
  for (std::uint32_t at = 0; at < tokens;) {
    std::uint32_t count = tokens - at;
    const Rows rows = keys.stretch(at, &count);
    kernels.attention.dot_rows(query, 1, rows, count, dim, scale, row + at, count);
    at += count;
  }
  const float sum = kernels.attention.softmax(row, tokens, kernels.array.max(row, tokens));
  kernels.array.axpby(1.0f, importance, share / sum, row, tokens);
}

}  // namespace kvsift
