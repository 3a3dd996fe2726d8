// The undo ring of a unit, worked on by one block.
#pragma once

#include "cuda/policy/image.cuh"

namespace kvsift {
namespace {

__device__ inline std::uint64_t slot_bytes(const Image &image) { return image.at.step_end - image.at.step_begin; }

// Slot of the `back`-th newest entry, from 0.
__device__ inline std::uint32_t slot_at(const DeviceHead &head, std::uint32_t back) {
  const std::uint32_t size = head.settings().c.rollback_tokens;
  return (head.unit()->undo_next + size - 1 - back) % size;
}

// Both begin at multiples of 64.
__device__ inline void copy_by_block(char *to, const char *from, std::uint64_t bytes) {
  for (std::uint64_t i = threadIdx.x; i < bytes / 16; i += blockDim.x) {
    reinterpret_cast<uint4 *>(to)[i] = reinterpret_cast<const uint4 *>(from)[i];
  }
}

// As remember of policy/undo.h. All threads of the block must call it; what they wrote before is part of the copy.
__device__ inline void remember(const DeviceHead &head, std::uint32_t tokens) {
  const Image &image = head.image;
  const std::uint32_t size = image.s.c.rollback_tokens;
  if (size == 0 || slot_bytes(image) == 0) return;
  __syncthreads();
  Unit *unit = head.unit();
  std::uint32_t *lengths = head.at<std::uint32_t>(image.at.undo_tokens);
  const std::uint32_t next = unit->undo_next, count = unit->undo_count;
  const bool known = count > 0 && lengths[(next + size - 1) % size] >= tokens;
  if (!known) copy_by_block(head.at<char>(image.at.undo) + next * slot_bytes(image), head.at<char>(image.at.step_begin), slot_bytes(image));
  __syncthreads();
  if (known || threadIdx.x != 0) return;
  lengths[next] = tokens;
  unit->undo_next = (next + 1) % size;
  if (count < size) unit->undo_count = count + 1;
}

}  // namespace
}  // namespace kvsift
