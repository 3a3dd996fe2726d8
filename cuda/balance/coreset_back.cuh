// The way back of a coreset: backups of what lies below its top.
#pragma once

#include "cuda/balance/coreset.cuh"

namespace kvsift {
namespace {

__device__ inline void CoresetWork::save_lists(char *to) const {
  const std::uint32_t count = size() - top();
  if (threadIdx.x == 0) *reinterpret_cast<CoresetState *>(to) = state_;
  to += sizeof(CoresetState);
  copy_down(reinterpret_cast<std::uint32_t *>(to), tokens_ + top(), count);
  copy_down(reinterpret_cast<float *>(to) + shape_.rows, weights_ + top(), count);
}

__device__ inline void CoresetWork::restore_lists(const char *from) {
  __syncthreads();
  if (threadIdx.x == 0) state_ = *reinterpret_cast<const CoresetState *>(from);
  __syncthreads();
  from += sizeof(CoresetState);
  const std::uint32_t count = size() - top();
  copy_down(tokens_ + top(), reinterpret_cast<const std::uint32_t *>(from), count);
  copy_down(weights_ + top(), reinterpret_cast<const float *>(from) + shape_.rows, count);
}

__device__ inline void CoresetWork::back_up() const {
  if (shape_.backups == 0) return;
  char *to = slot(slot_of(state_, state_.reduced));
  save_lists(to);
  F16 *rows = reinterpret_cast<F16 *>(to + list_bytes());
  const std::uint32_t count = size() - top();
  const auto same = [](std::uint32_t i) { return i; };
  move_rows(rows, keys_, shape_.dim, count, same);
  move_rows(rows + std::uint64_t{shape_.rows} * shape_.dim, values_, shape_.dim, count, same);
}

__device__ inline void CoresetWork::restore(const char *from) {
  restore_lists(from);
  const F16 *rows = reinterpret_cast<const F16 *>(from + list_bytes());
  const std::uint32_t count = size() - top();
  const auto same = [](std::uint32_t i) { return i; };
  move_rows(keys_, rows, shape_.dim, count, same);
  move_rows(values_, rows + std::uint64_t{shape_.rows} * shape_.dim, shape_.dim, count, same);
}

__device__ inline bool CoresetWork::can_truncate(std::uint32_t length) const {
  const CoresetState &from =
      closed() && length < end() ? *reinterpret_cast<const CoresetState *>(before_end()) : state_;
  if (from.base > 0 && length < shape_.sinks + from.base) return false;
  const std::uint32_t then = reduced_at(from, length);
  if (then >= from.reduced) return true;
  if (shape_.backups == 0) return false;
  const auto &kept = *reinterpret_cast<const CoresetState *>(slot(slot_of(from, then)));
  return kept.counts[0] > 0 && kept.reduced == then && kept.base == from.base &&
         (from.reduced - then) / shape_.group <= shape_.backups;
}

__device__ inline void CoresetWork::truncate(std::uint32_t length) {
  if (closed() && length < end()) restore_lists(before_end());
  const std::uint32_t then = reduced_at(state_, length);
  if (then < state_.reduced) restore(slot(slot_of(state_, then)));
  const std::uint32_t from = shape_.sinks + state_.reduced, left = length > from ? length - from : 0;
  __syncthreads();
  if (threadIdx.x == 0 && state_.counts[0] > left) state_.counts[0] = left;
  forget_after(length);
  __syncthreads();
}

// Backups that hold tokens which are gone will be written anew before they are needed.
__device__ inline void CoresetWork::forget_after(std::uint32_t length) const {
  for (std::uint32_t i = threadIdx.x; i < shape_.backups; i += blockDim.x) {
    auto *kept = reinterpret_cast<CoresetState *>(slot(i));
    if (shape_.sinks + kept->reduced + kept->counts[0] > length) *kept = CoresetState{};
  }
}

}  // namespace
}  // namespace kvsift
