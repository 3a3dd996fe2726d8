// Kernels of the self-balancing walk over one group of tokens.
#pragma once

#include <cstdint>

#include "kernels/element.h"
#include "kvsift/kvsift.h"

namespace kvsift {

// Tokens of a group lie in panels of 16, a coordinate a line: panel p holds at [c][lane] coordinate
// c of token 16 p + lane. Both operands of a Gram tile then stream through memory.
constexpr std::uint64_t panel_floats(std::uint32_t tokens, std::uint32_t dim) {
  return std::uint64_t{padded_dim(tokens)} * padded_dim(dim);
}

// A row to read: its elements, and what they are multiplied by (int8 scale, weight).
struct BalanceRow {
  const void *data;
  float factor;
};

struct BalanceRows {
  const BalanceRow *rows;
  std::uint32_t count;
  kvsift_type type;
  std::uint32_t dim;
};

// K(i, j) = exp(min(key_scale * <k_i, k_j> - shift, kMostExponent))
//           * (value_scale * <v_i, v_j> + value_offset)
struct BalanceWalk {
  const float *keys;    // panels
  const float *values;  // panels; null: the second factor is value_offset
  std::uint32_t count;
  std::uint32_t dim;
  float key_scale, shift;
  float value_scale, value_offset;
  float gamma;
  float limit;  // sums beyond it are failures; infinity: never
  bool first_is_plus;
  const float *uniforms;              // [count]
  float *sums;                        // [padded count], for the walk's use
  float *signs;                       // [padded count], out: +1 or -1, zero in the padding
  std::uint64_t saturated, failures;  // added to
};

// e^44 times any product of two clamped value rows, summed over every token there can be, is a
// finite float.
constexpr float kMostExponent = 44.0f;
// Longer coordinates are cut off to this.
constexpr float kMostCoordinate = 1e4f;

struct BalanceKernels {
  // mean[c] = share * sum of the rows, rows added in order; padded with zeros
  void (*mean)(const BalanceRows &rows, float share, float *mean);
  // Rows minus `centre` (null: as they are) to panels, and their square norms [padded count].
  void (*pack)(const BalanceRows &rows, const float *centre, float *panels, float *square_norms);
  // Signs of all tokens of a group. A token's sum adds K(i, j) sign_j by fma over j ascending, and
  // inner products add coordinates by fma ascending, whatever the tile.
  void (*walk)(BalanceWalk *walk);
};

}  // namespace kvsift
