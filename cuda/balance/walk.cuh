// The self-balancing walk of a warp over one group. Lane l has the sums of tokens l, l + 32 ... in registers.
#pragma once

#include "cuda/core/device.cuh"

namespace kvsift {
namespace {

constexpr std::uint32_t kAhead = 4;  // rows of the matrix on their way

struct WalkPlan {
  const float *matrix;  // [order][order]: row j, column i > j
  std::uint32_t order, count;
  float gamma;
};

// Entries of row j that come after it, as far as this lane has them.
template <std::uint32_t Slots>
__device__ inline void load_row(const WalkPlan &plan, std::uint32_t j, float (&row)[Slots]) {
  const std::uint32_t lane = threadIdx.x % kWarpThreads;
#pragma unroll
  for (std::uint32_t t = 0; t < Slots; ++t) {
    const std::uint32_t i = t * kWarpThreads + lane;
    row[t] = i > j && i < plan.count ? plan.matrix[std::uint64_t{j} * plan.order + i] : 0.0f;
  }
}

// Signs of all tokens of the group, bit l of word t for token 32 t + l: set where +1.
template <std::uint32_t Slots>
__device__ inline void walk(const WalkPlan &plan, const float (&uniform)[Slots], std::uint32_t (&plus)[Slots]) {
  float sum[Slots] = {}, row[kAhead][Slots];
#pragma unroll
  for (std::uint32_t a = 0; a < kAhead; ++a) load_row(plan, a, row[a]);
#pragma unroll
  for (std::uint32_t t = 0; t < Slots; ++t) {
    plus[t] = 0;
#pragma unroll 1
    for (std::uint32_t first = 0; first < kWarpThreads; first += kAhead) {
      const std::uint32_t begin = t * kWarpThreads + first;
      if (begin >= plan.count) break;
#pragma unroll
      for (std::uint32_t a = 0; a < kAhead; ++a) {
        const std::uint32_t j = begin + a;
        const float own = __shfl_sync(kAllLanes, sum[t], static_cast<int>(first + a));
        const float drawn = __shfl_sync(kAllLanes, uniform[t], static_cast<int>(first + a));
        const bool is_plus = j == 0 || drawn < __fmaf_rn(-plan.gamma, own, 0.5f);
        const float sign = is_plus ? 1.0f : -1.0f;
        plus[t] |= (is_plus ? 1u : 0u) << (first + a);
#pragma unroll
        for (std::uint32_t n = t; n < Slots; ++n) sum[n] = __fmaf_rn(row[a][n], sign, sum[n]);
        load_row(plan, j + kAhead, row[a]);
      }
    }
  }
}

}  // namespace
}  // namespace kvsift
