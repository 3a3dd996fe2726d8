// Which tokens stay once signs are drawn, and the result in order of tokens. A block for each head.
#include "cuda/balance/compress.h"

#include "cuda/balance/keep.cuh"

using namespace kvsift;

namespace {

constexpr std::uint32_t kKeepThreads = 1024;

__device__ std::uint64_t first_of_head(const BalanceArgs &args) { return std::uint64_t{blockIdx.x} * args.tokens; }

}  // namespace

KVSIFT_KERNEL(balance_start, BalanceArgs, kKeepThreads) {
  for (std::uint32_t i = threadIdx.x; i < args.tokens; i += blockDim.x) {
    args.index[first_of_head(args) + i] = args.begin + i;
    args.weight[first_of_head(args) + i] = 1.0f;
    args.weight_of[first_of_head(args) + i] = 0.0f;
  }
}

KVSIFT_KERNEL(balance_keep, BalanceArgs, kKeepThreads) {
  const std::uint64_t first = first_of_head(args);
  keep_half_in_block(args.signs + first, args.index + first, args.weight + first, args.count);
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
