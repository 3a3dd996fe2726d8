// The last block of several to be done.
#pragma once

#include "cuda/core/device.cuh"

namespace kvsift {
namespace {

// True in one block of `blocks`: the last to come here, which sees all that the others wrote. `arrivals` is zero before and
// after.
__device__ inline bool is_last_block(std::uint32_t *arrivals, std::uint32_t blocks) {
  __shared__ bool last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    last = atomicAdd(arrivals, 1u) + 1 == blocks;
    if (last) *arrivals = 0;
  }
  __syncthreads();
  __threadfence();
  return last;
}

}  // namespace
}  // namespace kvsift
