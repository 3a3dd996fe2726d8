// Moves in global memory by one block, towards lower addresses or to another place. All threads must call these.
#pragma once

#include "cuda/core/device.cuh"

namespace kvsift {
namespace {

// to[i] = *from(i), each read before a place at or behind it is written.
template <class T, class From>
__device__ inline void move_down(T *to, std::uint64_t count, From from) {
  constexpr std::uint32_t kPieces = 8;
  for (std::uint64_t first = 0; first < count; first += kPieces * blockDim.x) {
    T pieces[kPieces];
#pragma unroll
    for (std::uint32_t k = 0; k < kPieces; ++k) {
      const std::uint64_t i = first + k * blockDim.x + threadIdx.x;
      if (i < count) pieces[k] = *from(i);
    }
    __syncthreads();
#pragma unroll
    for (std::uint32_t k = 0; k < kPieces; ++k) {
      const std::uint64_t i = first + k * blockDim.x + threadIdx.x;
      if (i < count) to[i] = pieces[k];
    }
  }
  __syncthreads();
}

template <class T>
__device__ inline void copy_down(T *to, const T *from, std::uint64_t count) {
  move_down(to, count, [&](std::uint64_t i) { return from + i; });
}

}  // namespace
}  // namespace kvsift
