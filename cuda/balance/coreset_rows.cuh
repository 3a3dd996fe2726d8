// The rows that a coreset's halvings read: those it has copied, or those that are just given.
#pragma once

#include "cuda/policy/pages.h"
#include "cuda/policy/rows.cuh"

namespace kvsift {
namespace {

// A list names rows of the coreset.
struct CopiedRows {
  const F16 *keys, *values;     // [rows][dim]
  const std::uint32_t *tokens;  // of each row
  std::uint32_t dim;

  __device__ std::uint32_t token(std::uint32_t row) const { return tokens[row]; }
  __device__ float key(std::uint32_t row, std::uint32_t c) const { return widen(keys[std::uint64_t{row} * dim + c]); }

  // Up to eight coordinates from `c` on, of which there are `count`.
  template <bool Values>
  __device__ void load(std::uint32_t row, std::uint32_t c, std::uint32_t count, float (&x)[8]) const {
    const F16 *from = (Values ? values : keys) + std::uint64_t{row} * dim + c;
    if (dim % 8 == 0) return load8(from, x);
#pragma unroll
    for (std::uint32_t k = 0; k < 8; ++k) {
      if (k < count) x[k] = widen(from[k]);
    }
  }
};

// A list names tokens of the call, which are rounded as the coreset's copies would be.
struct GivenRows {
  const KeysArgs &args;
  std::uint32_t kv_head;

  __device__ static std::uint32_t token(std::uint32_t row) { return row; }
  __device__ static float rounded(const DeviceRow &row, kvsift_type type, std::uint32_t c) {
    return widen(narrow_half(element_at(row.data, type, c) * row.scale));
  }
  __device__ float key(std::uint32_t row, std::uint32_t c) const {
    return rounded(row_of(args.keys, 0, row - args.first_token, kv_head), args.keys.type, c);
  }
  template <bool Values>
  __device__ void load(std::uint32_t row, std::uint32_t c, std::uint32_t count, float (&x)[8]) const {
    const kvsift_view &view = Values ? args.values : args.keys;
    const DeviceRow from = row_of(view, 0, row - args.first_token, kv_head);
#pragma unroll
    for (std::uint32_t k = 0; k < 8; ++k) {
      if (k < count) x[k] = rounded(from, view.type, c + k);
    }
  }
};

}  // namespace
}  // namespace kvsift
