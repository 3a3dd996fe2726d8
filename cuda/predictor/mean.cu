#include "cuda/predictor/history.cuh"
#include "cuda/predictor/network.h"

using namespace kvsift;

namespace {

constexpr std::uint32_t kMeanThreads = 256, kGroups = kMeanThreads / kLanes;

// Which groups of the block's columns hold something in any row of the window. The crop's edges do: their padding differs.
__device__ void find_filled(const History &h, const PredictionPlan &plan, std::uint32_t first, std::uint8_t *any) {
  const std::uint32_t g = threadIdx.x % kGroups, last = (h.all.shape.columns + kLanes - 1) / kLanes;
  if (threadIdx.x < kGroups) {
    const std::uint32_t group = first / kLanes + threadIdx.x;
    any[threadIdx.x] = group == plan.left / kLanes || group == (plan.right - 1) / kLanes;
  }
  __syncthreads();
  if (first / kLanes + g >= last) return;
  for (std::uint32_t r = threadIdx.x / kGroups; r < plan.rows; r += kMeanThreads / kGroups) {
    if (h.filled(h.s_slot(plan, r))[first / kLanes + g] != 0) any[g] = 1;
  }
}

__device__ float mean_of_column(const History &h, const PredictionPlan &plan, std::uint32_t j) {
  const float *column = h.s(0) + j;
  const std::uint64_t stride = h.all.shape.columns;
  const std::uint32_t until_wrap = h.all.shape.rows - plan.s_slot, straight = plan.rows < until_wrap ? plan.rows : until_wrap;
  float sum = 0.0f;
#pragma unroll 8
  for (std::uint32_t r = 0; r < straight; ++r) sum += column[(plan.s_slot + r) * stride];
#pragma unroll 8
  for (std::uint32_t r = straight; r < plan.rows; ++r) sum += column[(r - straight) * stride];
  return __fmaf_rn(sum, plan.scale, h.all.predictor->weights.bias3);
}

}  // namespace

// Blocks: [any number][heads * lists].
KVSIFT_KERNEL(predictor_mean, PredictorMeanArgs, kMeanThreads) {
  __shared__ std::uint8_t any[kGroups];
  const PredictionPlan &plan = args.histories.plans[blockIdx.y];
  const History h(args.histories, blockIdx.y);
  // The newest of the rows that were scored from.
  const char *newest = plan.columns == 0 ? nullptr : h.row(h.marks().scored - 1);
  for (std::uint32_t first = blockIdx.x * kMeanThreads; first < plan.columns; first += gridDim.x * kMeanThreads) {
    const bool computed = plan.right > plan.left && plan.too_few == 0;
    if (computed) find_filled(h, plan, first, any);
    __syncthreads();
    const std::uint32_t j = first + threadIdx.x;
    if (j < plan.columns) {
      float score;
      if (j < plan.left || j >= plan.right) {
        score = share_at(newest, h.all.shape.form, j);
      } else if (!computed) {
        score = 1.0f;
      } else {
        score = any[threadIdx.x / kLanes] != 0 ? mean_of_column(h, plan, j) : plan.nothing;
      }
      h.scores()[j] = score;
    }
    __syncthreads();
  }
}
