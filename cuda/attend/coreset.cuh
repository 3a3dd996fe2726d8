// Chunks of a coreset: tokens with weights, whose logarithms join the logits.
#pragma once

#include "cuda/attend/chunk.cuh"

namespace kvsift {
namespace {

// Where the tokens of chunk `chunk` of what the list leaves of the coreset begin.
__device__ inline std::uint64_t coreset_place(const AttendPlan &plan, std::uint32_t list, std::uint32_t chunk) {
  return std::uint64_t{plan.index_of(list)} * plan.head.settings().coreset.most() + chunk * kChunk;
}

__device__ inline void find_coreset_tokens(const AttendPlan &plan, std::uint64_t place, std::uint32_t count,
                                           ChunkShared *shared) {
  const Image &image = plan.head.image;
  if (threadIdx.x < count) shared->tokens[threadIdx.x] = in_image<std::uint32_t>(image, image.room.left)[place + threadIdx.x];
  __syncthreads();
}

__device__ inline void add_log_weights(const AttendPlan &plan, std::uint64_t place, std::uint32_t heads, std::uint32_t count,
                                       float *logits) {
  const Image &image = plan.head.image;
  if (threadIdx.x < count) {
    const float log_weight = in_image<float>(image, image.room.left_logs)[place + threadIdx.x];
    for (std::uint32_t h = 0; h < heads; ++h) {
      float *logit = logits + h * kChunk + threadIdx.x;
      *logit = *logit + log_weight;
    }
  }
  __syncthreads();
}

}  // namespace
}  // namespace kvsift
