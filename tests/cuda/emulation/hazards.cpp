// Kernels with a hazard each, which `broken` puts in: races_test.cpp sees that the emulator tells of it, and of nothing without.
#include "emulation/hazards.h"

#include "cuda/core/copy.cuh"
#include "cuda/core/last.cuh"

using namespace kvsift;

// A barrier between what one thread writes and another reads.
KVSIFT_KERNEL(hazard_barrier, HazardArgs, 64) {
  __shared__ std::uint32_t words[64];
  words[threadIdx.x] = threadIdx.x;
  if (args.broken == 0) __syncthreads();
  args.out[threadIdx.x] = words[63 - threadIdx.x];
}

// Lanes of a warp may be apart: a shuffle orders no memory.
KVSIFT_KERNEL(hazard_warp, HazardArgs, 64) {
  __shared__ std::uint32_t words[64];
  words[threadIdx.x] = threadIdx.x;
  if (args.broken == 0) __syncwarp();
  args.out[threadIdx.x] = words[threadIdx.x ^ 1] + __shfl_sync(kAllLanes, threadIdx.x, 0);
}

// What was read is overwritten only after a barrier; by a byte here.
KVSIFT_KERNEL(hazard_reuse, HazardArgs, 64) {
  __shared__ std::uint8_t bytes[64];
  bytes[threadIdx.x] = 1;
  __syncthreads();
  args.out[threadIdx.x] = bytes[(threadIdx.x + 1) % 64];
  if (args.broken == 0) __syncthreads();
  bytes[threadIdx.x] = 2;
}

// Each thread's copies are there after its wait,
KVSIFT_KERNEL(hazard_copy, HazardArgs, 64) {
  __shared__ uint4 rows[64];
  copy_async(&rows[threadIdx.x], args.in + 4 * threadIdx.x);
  end_copies();
  if (args.broken == 0) wait_copies<0>();
  args.out[threadIdx.x] = rows[threadIdx.x].y;
  wait_copies<0>();
}

// and other threads' after a barrier.
KVSIFT_KERNEL(hazard_copy_of_others, HazardArgs, 64) {
  __shared__ uint4 rows[64];
  copy_async(&rows[threadIdx.x], args.in + 4 * threadIdx.x);
  end_copies();
  wait_copies<0>();
  if (args.broken == 0) __syncthreads();
  args.out[threadIdx.x] = rows[threadIdx.x ^ 32].y;
}

// Blocks that run at the same time,
KVSIFT_KERNEL(hazard_blocks, HazardArgs, 64) {
  if (threadIdx.x == 0) args.out[args.broken == 0 ? blockIdx.x : 0] = 1;
}

// the last of which sees what the others wrote before a fence,
KVSIFT_KERNEL(hazard_last, HazardArgs, 64) {
  args.out[blockIdx.x * 64 + threadIdx.x] = 1;
  if (args.broken == 0) {
    if (is_last_block(args.arrivals, gridDim.x)) args.out[threadIdx.x] += args.out[64 + threadIdx.x];
    return;
  }
  __syncthreads();
  const std::uint32_t before = threadIdx.x == 0 ? atomicAdd(args.arrivals, 1u) : 0;
  if (before == 1) args.out[0] += args.out[64];
}

// what all put alike,
KVSIFT_KERNEL(hazard_alike, HazardArgs, 64) {
  if (args.broken != 0 && threadIdx.x == 5) {
    args.out[0] = 7;
  } else {
    put_alike<std::uint32_t>(&args.out[0], 7);
  }
}

// and words that all add to: nobody may write those plainly.
KVSIFT_KERNEL(hazard_atomic, HazardArgs, 64) {
  if (args.broken != 0 && threadIdx.x == 5) *args.arrivals = 0;
  atomicAdd(args.arrivals, 1u);
}

// Reads what another piece of work writes.
KVSIFT_KERNEL(hazard_reader, HazardArgs, 64) { args.out[64 + threadIdx.x] = args.out[threadIdx.x]; }
