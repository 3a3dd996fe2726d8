// The self-balancing walk: a warp for each group.
#include "cuda/balance/compress.h"

#include "core/philox.h"
#include "cuda/balance/rows.cuh"
#include "cuda/balance/walk.cuh"

using namespace kvsift;

namespace {

__device__ float uniform_for(const BalanceArgs &args, const BalanceGroup &group, std::uint32_t i) {
  const Philox drawn = philox_at(args.seed, args.layer, args.first_head + group.head, group.index[i], args.draw);
  return uniform_of(drawn.word[0]);
}

template <std::uint32_t Slots>
__device__ void walk_group(const BalanceArgs &args, std::uint32_t number) {
  const BalanceGroup group = group_of_pass(args, number);
  const std::uint32_t lane = threadIdx.x % kWarpThreads;
  float uniform[Slots];
  std::uint32_t plus[Slots];
#pragma unroll
  for (std::uint32_t t = 0; t < Slots; ++t) {
    const std::uint32_t i = t * kWarpThreads + lane;
    uniform[t] = i < group.count ? uniform_for(args, group, i) : 0.0f;
  }
  const float *matrix = args.matrix + std::uint64_t{number} * args.order * args.order;
  walk(WalkPlan{matrix, args.order, group.count, args.gamma}, uniform, plus);
  std::int8_t *signs = args.signs + std::uint64_t{group.head} * args.tokens + group.first;
#pragma unroll
  for (std::uint32_t t = 0; t < Slots; ++t) {
    const std::uint32_t i = t * kWarpThreads + lane;
    if (i < group.count) signs[i] = (plus[t] >> lane & 1) != 0 ? 1 : -1;
  }
}

}  // namespace

// Groups of up to 256 tokens, and larger ones.
KVSIFT_KERNEL(balance_walk, BalanceArgs, 32) { walk_group<kWalkSlots / 2>(args, blockIdx.x); }
KVSIFT_KERNEL(balance_walk_large, BalanceArgs, 32) { walk_group<kWalkSlots>(args, blockIdx.x); }

// Blocks: [any number][heads]: fair coins, the first of each group +1.
KVSIFT_KERNEL(balance_toss, BalanceArgs, 256) {
  for (std::uint32_t i = blockIdx.x * blockDim.x + threadIdx.x; i < args.count; i += gridDim.x * blockDim.x) {
    const std::uint32_t token = args.index[std::uint64_t{blockIdx.y} * args.tokens + i];
    const float drawn = uniform_of(philox_at(args.seed, args.layer, args.first_head + blockIdx.y, token, args.draw).word[0]);
    args.signs[std::uint64_t{blockIdx.y} * args.tokens + i] = i % args.group == 0 || drawn < 0.5f ? 1 : -1;
  }
}
