// Which tokens stay once signs are drawn, and the result in order of tokens. A block for each head.
#include "cuda/balance/compress.h"

#include "cuda/core/block.cuh"

using namespace kvsift;

namespace {

constexpr std::uint32_t kKeepThreads = 1024;

__device__ std::uint64_t first_of_head(const BalanceArgs &args) { return std::uint64_t{blockIdx.x} * args.tokens; }

// The place where the later of the two signs has filled a half.
__device__ std::uint32_t find_turn(const std::int8_t *signs, std::uint32_t count) {
  __shared__ std::uint32_t turn;
  if (threadIdx.x == 0) turn = 0;
  __syncthreads();
  std::uint32_t plus_before = 0;
  for (std::uint32_t first = 0; first < count; first += blockDim.x) {
    const std::uint32_t i = first + threadIdx.x;
    const bool plus = i < count && signs[i] > 0;
    std::uint32_t total;
    const std::uint32_t pluses = plus_before + sum_before(plus ? 1 : 0, &total) + (plus ? 1 : 0);
    const std::uint32_t of_own_sign = plus ? pluses : i + 1 - pluses;
    if (i < count && of_own_sign == count / 2) atomicMax(&turn, i);
    plus_before += total;
  }
  __syncthreads();
  return turn;
}

}  // namespace

KVSIFT_KERNEL(balance_start, BalanceArgs, kKeepThreads) {
  for (std::uint32_t i = threadIdx.x; i < args.tokens; i += blockDim.x) {
    args.index[first_of_head(args) + i] = args.begin + i;
    args.weight[first_of_head(args) + i] = 1.0f;
    args.weight_of[first_of_head(args) + i] = 0.0f;
  }
}

// In place: a token moves to a place that was read before.
KVSIFT_KERNEL(balance_keep, BalanceArgs, kKeepThreads) {
  const std::int8_t *signs = args.signs + first_of_head(args);
  std::uint32_t *index = args.index + first_of_head(args);
  float *weight = args.weight + first_of_head(args);
  const std::uint32_t turn = find_turn(signs, args.count), half = args.count / 2;
  const bool filled = signs[turn] > 0;
  std::uint32_t kept = 0;
  for (std::uint32_t first = 0; first < args.count; first += blockDim.x) {
    const std::uint32_t i = first + threadIdx.x;
    const bool stays = i < args.count && (i > turn || (signs[i] > 0) != filled);
    const std::uint32_t token = stays ? index[i] : 0;
    const float w = stays ? weight[i] : 0.0f;
    std::uint32_t total;
    const std::uint32_t to = kept + sum_before(stays ? 1 : 0, &total);
    if (stays && to < half) {
      index[to] = token;
      weight[to] = i <= turn ? 2.0f * w : w;
    }
    kept += total;
  }
}

// Weights by token, scaled where that is wanted; then the tokens that have one.
KVSIFT_KERNEL(balance_finish, BalanceArgs, kKeepThreads) {
  const std::uint32_t *index = args.index + first_of_head(args);
  const float *weight = args.weight + first_of_head(args);
  float *weight_of = args.weight_of + first_of_head(args);
  // Powers of two: their sum is exact in any order.
  std::uint32_t own = 0;
  for (std::uint32_t i = threadIdx.x; i < args.count; i += blockDim.x) own += static_cast<std::uint32_t>(weight[i]);
  const double factor = static_cast<double>(args.tokens) / static_cast<double>(block_sum(own));
  for (std::uint32_t i = threadIdx.x; i < args.count; i += blockDim.x) {
    const float w = args.normalised != 0 ? static_cast<float>(static_cast<double>(weight[i]) * factor) : weight[i];
    weight_of[index[i] - args.begin] = w;
  }
  __syncthreads();
  std::uint32_t kept = 0;
  for (std::uint32_t first = 0; first < args.tokens; first += blockDim.x) {
    const std::uint32_t i = first + threadIdx.x;
    const float w = i < args.tokens ? weight_of[i] : 0.0f;
    std::uint32_t total;
    const std::uint32_t to = kept + sum_before(w != 0.0f ? 1 : 0, &total);
    if (w != 0.0f && to < args.capacity) {
      args.index_out[std::uint64_t{blockIdx.x} * args.capacity + to] = args.begin + i;
      args.weight_out[std::uint64_t{blockIdx.x} * args.capacity + to] = w;
    }
    kept += total;
  }
  if (threadIdx.x == 0) args.counts[blockIdx.x] = kept;
}
