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
  const std::uint32_t own = lane < warps ? of_warp[lane] : 0;
  *total = __reduce_add_sync(kAllLanes, own);
  const std::uint32_t before = __reduce_add_sync(kAllLanes, lane < warp ? own : 0u) + through - x;
  __syncthreads();
  return before;
}

__device__ inline std::uint32_t block_sum(std::uint32_t x) {
  __shared__ std::uint32_t of_warp[32];
  const std::uint32_t warps = blockDim.x / kWarpThreads, lane = threadIdx.x % kWarpThreads;
  x = __reduce_add_sync(kAllLanes, x);
  if (lane == 0) of_warp[threadIdx.x / kWarpThreads] = x;
  __syncthreads();
  x = __reduce_add_sync(kAllLanes, lane < warps ? of_warp[lane] : 0u);
  __syncthreads();
  return x;
}

}  // namespace
}  // namespace kvsift
