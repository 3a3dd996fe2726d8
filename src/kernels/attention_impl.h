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

// f(block, row, n) for each block that tokens first .. first + count - 1 touch, counted from the
// first one's.
template <class F>
void for_blocks(const float *row, std::uint32_t first, std::uint32_t count,
                std::uint32_t block_tokens, F f) {
  std::uint32_t block = 0, room = block_tokens - first % block_tokens;
  while (count > 0) {
    const std::uint32_t n = count < room ? count : room;
    f(block, row, n);
    row += n;
    count -= n;
    ++block;
    room = block_tokens;
  }
}

template <class V>
void block_max(const float *row, std::uint32_t first, std::uint32_t count,
               std::uint32_t block_tokens, float *out) {
  const float least = -__builtin_inff();
  if (block_tokens == 1) {
    map_array<V>(row, out, count, [](V x, V y) { return max(x, y); });
    return;
  }
  for_blocks(row, first, count, block_tokens,
             [=](std::uint32_t block, const float *x, std::uint32_t n) {
               float m = x[0];
               if (n > 1) {
                 V largest = V::broadcast(least);
                 std::uint32_t i = 0;
                 for (; i + kLanes <= n; i += kLanes) largest = max(largest, V::load(x + i));
                 if (i < n) largest = max(largest, load_filled<V>(x + i, n - i, least));
                 m = reduce_max(largest);
               }
               if (m > out[block]) out[block] = m;
             });
}

template <class V>
void block_sum(const float *row, std::uint32_t first, std::uint32_t count,
               std::uint32_t block_tokens, float *out) {
  if (block_tokens == 1) {
    map_array<V>(row, out, count, [](V x, V y) { return add(y, x); });
    return;
  }
  for_blocks(row, first, count, block_tokens,
             [=](std::uint32_t block, const float *x, std::uint32_t n) {
               float s = x[0];
               if (n > 1) {
                 V sum = V::zero();
                 std::uint32_t i = 0;
                 for (; i + kLanes <= n; i += kLanes) sum = add(sum, V::load(x + i));
                 if (i < n) sum = add(sum, load_part<V>(x + i, n - i));
                 s = reduce_add(sum);
               }
               out[block] += s;
             });
}

template <class V>
constexpr AttentionKernels attention_kernels = {
    dot_rows<V>,           dot_rows_ahead<V>, softmax<V>,  weighted_sum<V>,
    weighted_sum_ahead<V>, block_max<V>,      block_sum<V>};

}  // namespace
}  // namespace kvsift
