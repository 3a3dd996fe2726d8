// Predict early, verify late: blocks that the page statistics rank among the best and that an earlier choice missed. Worked
// on by one block.
#pragma once

#include "cuda/policy/lists.cuh"
#include "cuda/policy/top_blocks.cuh"

namespace kvsift {
namespace {

__device__ inline bool is_among(const std::uint32_t *numbers, std::uint32_t count, std::uint32_t x) {
  const std::uint32_t at = first_from(numbers, count, x);
  return at < count && numbers[at] == x;
}

// Merges `added` into numbers[0 .. count), both ascending, no number in both; `room` holds all of them.
__device__ inline void merge_numbers(std::uint32_t *numbers, std::uint32_t count, const std::uint32_t *added,
                                     std::uint32_t added_count, std::uint32_t *room) {
  for (std::uint32_t i = threadIdx.x; i < count; i += blockDim.x) room[i + first_from(added, added_count, numbers[i])] = numbers[i];
  for (std::uint32_t i = threadIdx.x; i < added_count; i += blockDim.x) room[i + first_from(numbers, count, added[i])] = added[i];
  __syncthreads();
  for (std::uint32_t i = threadIdx.x; i < count + added_count; i += blockDim.x) numbers[i] = room[i];
  __syncthreads();
}

// As add_late of policy/select.cpp. `late` holds the page statistics' scores and is overwritten, `room` is for as many numbers
// as there are candidates, `missed` for `cap`. Returns how many joined the `count` chosen.
__device__ inline std::uint32_t add_late(float *late, const Crop &crop, std::uint32_t k, std::uint32_t cap, std::uint32_t *room,
                                         std::uint32_t *chosen, std::uint32_t count, std::uint32_t *missed) {
  const std::uint32_t candidates = crop.end - crop.begin, best = top_blocks(late, crop.begin, candidates, k, room);
  for (std::uint32_t i = crop.begin + threadIdx.x; i < crop.end; i += blockDim.x) {
    if (!is_among(room, best, i) || is_among(chosen, count, i)) late[i] = -infinity();
  }
  __syncthreads();
  const std::uint32_t added = top_blocks(late, crop.begin, candidates, cap, missed);
  merge_numbers(chosen, count, missed, added, room);
  return added;
}

}  // namespace
}  // namespace kvsift
