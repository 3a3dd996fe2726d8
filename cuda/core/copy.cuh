// Copies from global to shared memory that run while the threads go on.
#pragma once

#include "cuda/core/device.cuh"

namespace kvsift {
namespace {

// 16 bytes, both addresses multiples of 16.
__device__ inline void copy_async(void *shared, const void *global) {
#ifdef KVSIFT_EMULATED
  emulator::copy_async(shared, global, 16);
#else
  const auto to = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(global) : "memory");
#endif
}

// The copies since the last call are one group.
__device__ inline void end_copies() {
#ifdef KVSIFT_EMULATED
  emulator::end_copies();
#else
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until at most `kLeft` of this thread's groups are under way.
template <int kLeft>
__device__ inline void wait_copies() {
#ifdef KVSIFT_EMULATED
  emulator::wait_copies(kLeft);
#else
  asm volatile("cp.async.wait_group %0;" ::"n"(kLeft) : "memory");
#endif
}

}  // namespace
}  // namespace kvsift
