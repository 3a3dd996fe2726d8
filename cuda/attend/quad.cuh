// Dot products by four neighbouring threads: thread q has lanes 4 q .. 4 q + 3. Their sums by the tree over lanes (i, i + 8),
// (i, i + 4) ..., in which each exchange hands half of what a thread holds to its partner.
#pragma once

#include "cuda/core/device.cuh"

namespace kvsift {
namespace {

// step(c) for `steps` element numbers c, 16 apart. kBatch of them are one stretch of code, so that their loads are under way
// together: a loop that counted c itself would have to look after each.
template <int kBatch, class Step>
__device__ inline void by_batches(std::uint32_t c, std::uint32_t steps, Step step) {
  for (std::uint32_t batch = 0; batch < steps / kBatch; ++batch) {
#pragma unroll
    for (int i = 0; i < kBatch; ++i, c += 16) step(c);
  }
  if constexpr (kBatch > 1) by_batches<kBatch / 2>(c, steps % kBatch, step);
}

// The thread's element numbers 4 q, 4 q + 16 ... below `dim`, a multiple of 4.
template <int kBatch, class Step>
__device__ inline void by_elements(std::uint32_t dim, Step step) {
  const std::uint32_t own = threadIdx.x % 4 * 4;
  by_batches<kBatch>(own, dim / 16, step);
  if (own < dim % 16) step(dim / 16 * 16 + own);
}

// x + y of the partner `distance` away, where x is what this thread keeps and y what it gives.
template <class T>
__device__ inline T kept_sum(T keep, T give, unsigned distance) {
  return keep + __shfl_xor_sync(kAllLanes, give, distance);
}

__device__ inline float tree4(const float (&x)[4]) { return (x[0] + x[2]) + (x[1] + x[3]); }

// Of two tokens and one query head; thread q gets that of token q / 2.
__device__ inline float sum_of_two(const float (&lanes)[2][1][4]) {
  const bool high = (threadIdx.x & 2) != 0;
  float x[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float half = kept_sum(high ? lanes[1][0][i] : lanes[0][0][i], high ? lanes[0][0][i] : lanes[1][0][i], 2);
    x[i] = kept_sum(half, half, 1);
  }
  return tree4(x);
}

// Of two tokens and four query heads; thread q gets heads 2 (q % 2) and the next of token q / 2.
__device__ inline void sums_of_two(const float (&lanes)[2][4][4], float (&sum)[2]) {
  const bool high = (threadIdx.x & 2) != 0, odd = (threadIdx.x & 1) != 0;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    float x[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float low = kept_sum(high ? lanes[1][h][i] : lanes[0][h][i], high ? lanes[0][h][i] : lanes[1][h][i], 2);
      const float up = kept_sum(high ? lanes[1][2 + h][i] : lanes[0][2 + h][i], high ? lanes[0][2 + h][i] : lanes[1][2 + h][i], 2);
      x[i] = kept_sum(odd ? up : low, odd ? low : up, 1);
    }
    sum[h] = tree4(x);
  }
}

}  // namespace
}  // namespace kvsift
