// The end of a coreset: everything but the lag is halved up to the top, wherever it was.
#pragma once

#include "cuda/balance/coreset_back.cuh"

namespace kvsift {
namespace {

// As CoresetBuilder::close: rows stay where they are, only lists of them are halved. These lists ascend all the while: rows of
// a higher level are lower.
__device__ inline void CoresetWork::close() {
  const std::uint32_t newest = state_.counts[0], lag = shape_.lag, leave = newest > lag ? newest - lag : 0;
  save_lists(before_end());
  std::uint32_t begin = size() - newest, listed = leave;
  const std::uint32_t left_from = begin + leave;
  list_rows(begin, leave, 0);
  for (std::uint32_t level = 0; level < shape_.levels; ++level) {
    if (level > 0) {
      begin -= state_.counts[level];
      list_rows(begin, state_.counts[level], listed);
      listed += state_.counts[level];
    }
    listed = halve(listed, level);
  }
  take_top(listed, newest - leave, left_from);
  __syncthreads();
  if (threadIdx.x == 0) {
    for (std::uint32_t level = 1; level < shape_.levels; ++level) state_.counts[level] = 0;
    state_.counts[0] = newest - leave;
    state_.counts[shape_.levels] += listed;
    state_.reduced += leave;
    state_.base = state_.reduced;
    state_.closed = 1;
  }
  __syncthreads();
}

// The listed rows join the top; behind them come the `newest` tokens at `from`.
__device__ inline void CoresetWork::take_top(std::uint32_t kept, std::uint32_t newest, std::uint32_t from) {
  const HalveShared &list = shared_->halve;
  const std::uint32_t at = top();
  move_down(tokens_ + at, kept, [&](std::uint64_t i) { return tokens_ + at + list.order[i]; });
  copy_down(weights_ + at, list.weight, kept);
  copy_down(tokens_ + at + kept, tokens_ + from, newest);
  copy_down(weights_ + at + kept, weights_ + from, newest);
}

}  // namespace
}  // namespace kvsift
