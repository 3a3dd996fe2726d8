// Loads of what is left at the end of an array or row.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/view.h"
#include "kernels/attention_kernels.h"
#include "kernels/element.h"

namespace kvsift {
namespace {

// f(0), ... f(N - 1) without a loop: arrays of accumulators become registers only where indices are
// constants.
template <std::uint32_t N, class F>
inline __attribute__((always_inline)) void each(F f) {
  if constexpr (N > 0) {
    each<N - 1>(f);
    f(N - 1);
  }
}

// n < 16 elements, the other lanes zero.
template <class V, class T>
V load_part(const T *p, std::size_t n) {
  T part[kLanes] = {};
  __builtin_memcpy(part, p, n * sizeof(T));
  return V::load(part);
}

// n < 16 elements, the other lanes `fill`.
template <class V>
V load_filled(const float *p, std::size_t n, float fill) {
  float part[kLanes];
  for (float &x : part) x = fill;
  __builtin_memcpy(part, p, n * sizeof(float));
  return V::load(part);
}

template <class V>
void store_part(float *p, V x, std::size_t n) {
  float part[kLanes];
  store(part, x);
  __builtin_memcpy(p, part, n * sizeof(float));
}

// f(T{}) with the element type of `type`.
template <class F>
auto with_type(kvsift_type type, F f) {
  switch (type) {
    case KVSIFT_F16: return f(F16{});
    case KVSIFT_BF16: return f(BF16{});
    case KVSIFT_I8: return f(std::int8_t{});
    default: return f(float{});
  }
}

inline std::uint32_t element_size(kvsift_type type) {
  return with_type(type, [](auto element) { return static_cast<std::uint32_t>(sizeof element); });
}

template <class T>
const T *row_of(const Rows &rows, std::uint64_t i) {
  const std::uint8_t *row = rows.list != nullptr ? rows.list[i] : rows.data + i * rows.stride;
  return reinterpret_cast<const T *>(row);
}

inline float scale_of(const Rows &rows, std::uint64_t i) {
  if (rows.scales == nullptr) return 1.0f;
  const auto *bytes = reinterpret_cast<const std::uint8_t *>(rows.scales) + i * rows.scale_stride;
  return *reinterpret_cast<const float *>(bytes);
}

inline Rows rows_from(const Rows &rows, std::uint64_t first) {
  Rows rest = rows;
  rest.data += first * rows.stride;
  if (rows.list != nullptr) rest.list += first;
  if (rows.scales != nullptr)
    rest.scales = reinterpret_cast<const float *>(
        reinterpret_cast<const std::uint8_t *>(rows.scales) + first * rows.scale_stride);
  return rest;
}

constexpr std::uint32_t kLineBytes = 64;

inline void ask_for_line(const std::uint8_t *p) { __builtin_prefetch(p, 0, 2); }

// The lines that begin in bytes [from, to) of a row.
inline void ask_for_lines(const std::uint8_t *row, std::size_t from, std::size_t to) {
  for (std::size_t byte = (from + kLineBytes - 1) / kLineBytes * kLineBytes; byte < to;
       byte += kLineBytes)
    ask_for_line(row + byte);
  __asm__ volatile("");  // gcc takes a function that only prefetches for one without effect
}

inline void ask_for(const Ahead &ahead, std::uint32_t i) {
  if (i < ahead.count) ask_for_lines(row_of<std::uint8_t>(ahead.rows, i), 0, ahead.bytes);
}

}  // namespace
}  // namespace kvsift
