#pragma once

#include "kernels/array_impl.h"
#include "kernels/attention_kernels.h"
#include "kernels/dot_impl.h"
#include "kernels/exp.h"
#include "kernels/load_part.h"
#include "kernels/weighted_impl.h"

namespace kvsift {
namespace {

template <class V>
float softmax(float *row, std::size_t count, float max) {
  const V largest = V::broadcast(max);
  V sum = V::zero();
  std::size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const V p = exp(sub(V::load(row + i), largest));
    store(row + i, p);
    sum = add(sum, p);
  }
  if (i < count) {
    const V p = exp(sub(load_filled<V>(row + i, count - i, -__builtin_inff()), largest));
    store_part(row + i, p, count - i);
    sum = add(sum, p);
  }
  return reduce_add(sum);
}

// What a block's elements come to: their largest, or their sum.
template <class V>
struct Largest {
  static V first(V a) { return a; }
  static V join(V a, V b) { return max(a, b); }
  static V part(const float *x, std::size_t n) { return load_filled<V>(x, n, -__builtin_inff()); }
  static float reduce(V x) { return reduce_max(x); }
  static void reduce4(V a, V b, V c, V d, float *out) { reduce_max4(a, b, c, d, out); }
  static void take(float x, float *out) {
    if (x > *out) *out = x;
  }
};
template <class V>
struct Sum {
  static V first(V a) { return add(V::zero(), a); }
  static V join(V a, V b) { return add(a, b); }
  static V part(const float *x, std::size_t n) { return load_part<V>(x, n); }
  static float reduce(V x) { return reduce_add(x); }
  static void reduce4(V a, V b, V c, V d, float *out) { reduce_add4(a, b, c, d, out); }
  static void take(float x, float *out) { *out += x; }
};

template <class V, class Figure>
float figure_of(const float *x, std::uint32_t n) {
  if (n == 1) return x[0];
  if (n < kLanes) return Figure::reduce(Figure::first(Figure::part(x, n)));
  V all = Figure::first(V::load(x));
  std::uint32_t i = kLanes;
  for (; i + kLanes <= n; i += kLanes) all = Figure::join(all, V::load(x + i));
  if (i < n) all = Figure::join(all, Figure::part(x + i, n - i));
  return Figure::reduce(all);
}

template <class V, class Figure>
void block_figures(const float *row, std::uint32_t first, std::uint32_t count,
                   std::uint32_t block_tokens, float *out) {
  std::uint32_t room = block_tokens - first % block_tokens;
  while (count > 0) {
    if (block_tokens == kLanes && room == kLanes && count >= 4 * kLanes) {
      // Whole blocks: nothing else belongs to them.
      Figure::reduce4(Figure::first(V::load(row)), Figure::first(V::load(row + kLanes)),
                      Figure::first(V::load(row + 2 * kLanes)),
                      Figure::first(V::load(row + 3 * kLanes)), out);
      out += 4;
      row += 4 * kLanes;
      count -= 4 * kLanes;
      continue;
    }
    const std::uint32_t n = count < room ? count : room;
    Figure::take(figure_of<V, Figure>(row, n), out++);
    row += n;
    count -= n;
    room = block_tokens;
  }
}

template <class V>
void block_max(const float *row, std::uint32_t first, std::uint32_t count,
               std::uint32_t block_tokens, float *out) {
  if (block_tokens == 1) {
    map_array<V>(row, out, count, [](V x, V y) { return max(x, y); });
    return;
  }
  block_figures<V, Largest<V>>(row, first, count, block_tokens, out);
}

template <class V>
void block_sum(const float *row, std::uint32_t first, std::uint32_t count,
               std::uint32_t block_tokens, float *out) {
  if (block_tokens == 1) {
    map_array<V>(row, out, count, [](V x, V y) { return add(y, x); });
    return;
  }
  block_figures<V, Sum<V>>(row, first, count, block_tokens, out);
}

template <class V>
constexpr AttentionKernels attention_kernels = {
    dot_rows<V>,           dot_rows_ahead<V>, softmax<V>,  weighted_sum<V>,
    weighted_sum_ahead<V>, block_max<V>,      block_sum<V>};

}  // namespace
}  // namespace kvsift
