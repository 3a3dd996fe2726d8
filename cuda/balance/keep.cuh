// Which tokens stay once signs are drawn, worked on by one block.
#pragma once

#include "cuda/core/block.cuh"

namespace kvsift {
namespace {

// The place where the later of the two signs has filled a half.
__device__ inline std::uint32_t find_turn(const std::int8_t *signs, std::uint32_t count) {
  __shared__ std::uint32_t turn;
  if (threadIdx.x == 0) turn = 0;
  __syncthreads();
  std::uint32_t plus_before = 0;
  for (std::uint32_t first = 0; first < count; first += blockDim.x) {
    const std::uint32_t i = first + threadIdx.x;
    const bool plus = i < count && signs[i] > 0;
    std::uint32_t total;
    const std::uint32_t pluses = plus_before + sum_before(plus ? 1 : 0, &total) + (plus ? 1 : 0);
    const std::uint32_t of_own_sign = plus ? pluses : i + 1 - pluses;
    if (i < count && of_own_sign == count / 2) atomicMax(&turn, i);
    plus_before += total;
  }
  __syncthreads();
  return turn;
}

// As keep_half of balance/halver.h, in place: a token moves to a place that was read before.
__device__ inline std::uint32_t keep_half_in_block(const std::int8_t *signs, std::uint32_t *index, float *weight,
                                                   std::uint32_t count) {
  const std::uint32_t turn = find_turn(signs, count), half = count / 2;
  const bool filled = signs[turn] > 0;
  std::uint32_t kept = 0;
  for (std::uint32_t first = 0; first < count; first += blockDim.x) {
    const std::uint32_t i = first + threadIdx.x;
    const bool stays = i < count && (i > turn || (signs[i] > 0) != filled);
    const std::uint32_t token = stays ? index[i] : 0;
    const float w = stays ? weight[i] : 0.0f;
    std::uint32_t total;
    const std::uint32_t to = kept + sum_before(stays ? 1 : 0, &total);
    if (stays && to < half) {
      index[to] = token;
      weight[to] = i <= turn ? 2.0f * w : w;
    }
    kept += total;
  }
  __syncthreads();
  return half;
}

}  // namespace
}  // namespace kvsift
