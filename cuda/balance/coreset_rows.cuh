// The rows that a coreset's halvings read: those it has copied, or those that are just given.
#pragma once

#include "cuda/policy/pages.h"
#include "cuda/policy/rows.cuh"

namespace kvsift {
namespace {

// Calls f with a value of the type: one branch around many loads, which can then be under way at the same time.
template <class F>
__device__ inline void with_element(kvsift_type type, F f) {
  switch (type) {
    case KVSIFT_F16: return f(F16{});
    case KVSIFT_BF16: return f(BF16{});
    case KVSIFT_I8: return f(std::int8_t{});
    default: return f(float{});
  }
}

// A list names rows of the coreset.
struct CopiedRows {
  const F16 *keys, *values;     // [rows][dim]
  const std::uint32_t *tokens;  // of each row
  std::uint32_t dim;

  __device__ std::uint32_t token(std::uint32_t row) const { return tokens[row]; }

  template <class F>
  __device__ void with_keys(F f) const {
    f(F16{});
  }
  // A coordinate of a key, of the type that with_keys has.
  template <class T>
  __device__ float key(std::uint32_t row, std::uint32_t c) const {
    return widen(keys[std::uint64_t{row} * dim + c]);
  }
  // Up to eight coordinates from `c` on, of which there are `count`.
  template <bool Values>
  __device__ void load(std::uint32_t row, std::uint32_t c, std::uint32_t count, float (&x)[8]) const {
    const F16 *from = (Values ? values : keys) + std::uint64_t{row} * dim + c;
    if (dim % 8 == 0) return load8(from, x);
#pragma unroll
    for (std::uint32_t k = 0; k < 8; ++k) x[k] = k < count ? widen(from[k]) : 0.0f;
  }
};

// A list names tokens of the call, which are rounded as the coreset's copies would be.
struct GivenRows {
  const KeysArgs &args;
  std::uint32_t kv_head;

  __device__ static std::uint32_t token(std::uint32_t row) { return row; }
  __device__ static float rounded(float x) { return widen(narrow_half(x)); }
  __device__ DeviceRow row_in(const kvsift_view &view, std::uint32_t row) const {
    return row_of(view, 0, row - args.first_token, kv_head);
  }

  template <class F>
  __device__ void with_keys(F f) const {
    with_element(args.keys.type, f);
  }
  template <class T>
  __device__ float key(std::uint32_t row, std::uint32_t c) const {
    const DeviceRow from = row_in(args.keys, row);
    return rounded(widen(reinterpret_cast<const T *>(from.data)[c]) * from.scale);
  }
  template <bool Values>
  __device__ void load(std::uint32_t row, std::uint32_t c, std::uint32_t count, float (&x)[8]) const {
    const kvsift_view &view = Values ? args.values : args.keys;
    const DeviceRow from = row_in(view, row);
    with_element(view.type, [&](auto element) {
      const auto *data = reinterpret_cast<const decltype(element) *>(from.data) + c;
#pragma unroll
      for (std::uint32_t k = 0; k < 8; ++k) x[k] = k < count ? widen(data[k]) : 0.0f;
    });
#pragma unroll
    for (std::uint32_t k = 0; k < 8; ++k) x[k] = rounded(x[k] * from.scale);
  }
};

}  // namespace
}  // namespace kvsift
