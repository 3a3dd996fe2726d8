// The self-balancing walk: a warp for each group. Lane l has the sums of tokens l, l + 32 ... in registers.
#include "cuda/balance/compress.h"

#include "core/philox.h"
#include "cuda/balance/rows.cuh"

using namespace kvsift;

namespace {

constexpr std::uint32_t kAhead = 4;  // rows of the matrix on their way

__device__ float uniform_for(const BalanceArgs &args, const BalanceGroup &group, std::uint32_t i) {
  const Philox drawn = philox_at(args.seed, args.layer, args.first_head + group.head, group.index[i], args.draw);
  return uniform_of(drawn.word[0]);
}

// Entries of row j that come after it, as far as this lane has them.
template <std::uint32_t Slots>
__device__ void load_row(const float *matrix, std::uint32_t order, std::uint32_t count, std::uint32_t j,
                         float (&row)[Slots]) {
  const std::uint32_t lane = threadIdx.x % kWarpThreads;
#pragma unroll
  for (std::uint32_t t = 0; t < Slots; ++t) {
    const std::uint32_t i = t * kWarpThreads + lane;
    row[t] = i > j && i < count ? matrix[std::uint64_t{j} * order + i] : 0.0f;
  }
}

// Signs of all tokens of a group, bit l of word t for token 32 t + l: set where +1.
template <std::uint32_t Slots>
__device__ void walk(const BalanceArgs &args, const float *matrix, std::uint32_t count, const float (&uniform)[Slots],
                     std::uint32_t (&plus)[Slots]) {
  float sum[Slots] = {}, row[kAhead][Slots];
#pragma unroll
  for (std::uint32_t a = 0; a < kAhead; ++a) load_row(matrix, args.order, count, a, row[a]);
#pragma unroll
  for (std::uint32_t t = 0; t < Slots; ++t) {
    plus[t] = 0;
#pragma unroll 1
    for (std::uint32_t first = 0; first < kWarpThreads; first += kAhead) {
      const std::uint32_t begin = t * kWarpThreads + first;
      if (begin >= count) break;
#pragma unroll
      for (std::uint32_t a = 0; a < kAhead; ++a) {
        const std::uint32_t j = begin + a;
        const float own = __shfl_sync(kAllLanes, sum[t], static_cast<int>(first + a));
        const float drawn = __shfl_sync(kAllLanes, uniform[t], static_cast<int>(first + a));
        const bool is_plus = j == 0 || drawn < __fmaf_rn(-args.gamma, own, 0.5f);
        const float sign = is_plus ? 1.0f : -1.0f;
        plus[t] |= (is_plus ? 1u : 0u) << (first + a);
#pragma unroll
        for (std::uint32_t n = t; n < Slots; ++n) sum[n] = __fmaf_rn(row[a][n], sign, sum[n]);
        load_row(matrix, args.order, count, j + kAhead, row[a]);
      }
    }
  }
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
  walk(args, args.matrix + std::uint64_t{number} * args.order * args.order, group.count, uniform, plus);
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
