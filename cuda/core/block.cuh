// Sums, maxima and prefix sums over the threads of a block, a multiple of 32 of them. All threads must call these.
#pragma once

#include "cuda/core/device.cuh"

namespace kvsift {
namespace {

// The largest x of the block; NaN loses.
__device__ inline float block_max(float x) {
  __shared__ float of_warp[32];
  const std::uint32_t warps = blockDim.x / kWarpThreads, lane = threadIdx.x % kWarpThreads;
#pragma unroll
  for (unsigned step = 16; step > 0; step /= 2) {
    const float other = __shfl_xor_sync(kAllLanes, x, step);
    x = other > x ? other : x;
  }
  if (lane == 0) of_warp[threadIdx.x / kWarpThreads] = x;
  __syncthreads();
  x = of_warp[0];
  for (std::uint32_t w = 1; w < warps; ++w) x = of_warp[w] > x ? of_warp[w] : x;
  __syncthreads();
  return x;
}

// What the threads before this one hold; *total is what all hold.
__device__ inline std::uint32_t sum_before(std::uint32_t x, std::uint32_t *total) {
  __shared__ std::uint32_t of_warp[32];
  const std::uint32_t warps = blockDim.x / kWarpThreads, lane = threadIdx.x % kWarpThreads;
  const std::uint32_t warp = threadIdx.x / kWarpThreads;
  std::uint32_t through = x;
#pragma unroll
  for (unsigned step = 1; step < kWarpThreads; step *= 2) {
    const std::uint32_t other = __shfl_up_sync(kAllLanes, through, step);
    if (lane >= step) through += other;
  }
  if (lane == kWarpThreads - 1) of_warp[warp] = through;
  __syncthreads();
  if (warp == 0) {
    const std::uint32_t own = lane < warps ? of_warp[lane] : 0;
    std::uint32_t sum = own;
#pragma unroll
    for (unsigned step = 1; step < kWarpThreads; step *= 2) {
      const std::uint32_t other = __shfl_up_sync(kAllLanes, sum, step);
      if (lane >= step) sum += other;
    }
    of_warp[lane] = sum;
  }
  __syncthreads();
  const std::uint32_t before = (warp > 0 ? of_warp[warp - 1] : 0) + through - x;
  *total = of_warp[warps - 1];
  __syncthreads();
  return before;
}

__device__ inline std::uint32_t block_sum(std::uint32_t x) {
  std::uint32_t total;
  sum_before(x, &total);
  return total;
}

}  // namespace
}  // namespace kvsift
