#include "cuda/policy/image.cuh"
#include "cuda/predictor/history.cuh"
#include "cuda/predictor/network.h"

using namespace kvsift;

namespace {

constexpr std::uint32_t kGroups = kMeanThreads / kLanes;

// Which groups of the block's columns hold something in any row of the window. The crop's edges do: their padding differs.
__device__ void find_filled(const History &h, const PredictionPlan &plan, std::uint32_t first, std::uint8_t *any) {
  const std::uint32_t g = threadIdx.x % kGroups, last = (h.all.shape.columns + kLanes - 1) / kLanes;
  if (threadIdx.x < kGroups) {
    const std::uint32_t group = first / kLanes + threadIdx.x;
    any[threadIdx.x] = group == plan.left / kLanes || group == (plan.right - 1) / kLanes;
  }
  __syncthreads();
  if (first / kLanes + g >= last) return;
  std::uint32_t filled = 0;
  constexpr std::uint32_t kStep = kMeanThreads / kGroups;
#pragma unroll 4
  for (std::uint32_t n = 0; n < (plan.rows + kStep - 1) / kStep; ++n) {
    const std::uint32_t r = n * kStep + threadIdx.x / kGroups;
    if (r < plan.rows) filled |= h.filled(h.s_slot(plan, r))[first / kLanes + g];
  }
  if (filled != 0) put_alike<std::uint8_t>(&any[g], 1);
}

__device__ float mean_of_column(const History &h, const PredictionPlan &plan, std::uint32_t j) {
  const float *column = h.s(0) + j;
  const std::uint64_t stride = h.all.shape.columns;
  float sum = 0.0f;
#pragma unroll 32
  for (std::uint32_t r = 0; r < plan.rows; ++r) sum += column[h.s_slot(plan, r) * stride];
  return __fmaf_rn(sum, plan.scale, h.all.predictor->weights.bias3);
}

// Score of column `j` of the plan; `any` tells of the groups of columns from `first` on.
__device__ float score_of(const History &h, const PredictionPlan &plan, const std::uint8_t *any, std::uint32_t first,
                          std::uint32_t j) {
  if (j < plan.left || j >= plan.right) return share_at(h.row(h.marks().scored - 1), h.all.shape.form, j);
  if (plan.too_few != 0) return 1.0f;
  return any[(j - first) / kLanes] != 0 ? mean_of_column(h, plan, j) : plan.nothing;
}

// Leading blocks that a selection can rank.
__device__ std::uint32_t ranked_blocks(const PredictorMeanArgs &args, const History &h) {
  if (args.out == nullptr || h.marks().scored == kNever) return 0;
  const std::uint32_t known = h.columns_at(h.state().end);
  const std::uint32_t blocks = blocks_of(tokens_of(args.call), h.all.block_tokens);
  return known < blocks ? known : blocks;
}

}  // namespace

// Blocks: [any number][heads * lists]; few enough at a time for a thread to have many loads on their way.
KVSIFT_KERNEL_RESIDENT(predictor_mean, PredictorMeanArgs, kMeanThreads, 4) {
  __shared__ std::uint8_t any[kGroups];
  const PredictionPlan &plan = args.histories.plans[blockIdx.y];
  const History h(args.histories, blockIdx.y);
  const std::uint32_t head = blockIdx.y / h.all.lists, ranked = ranked_blocks(args, h);
  if (args.out != nullptr && blockIdx.x == 0 && threadIdx.x == 0 && h.list == 0) args.scored[head] = ranked;
  float *out = args.out == nullptr ? nullptr : args.out + head * args.head_stride + h.list * args.list_stride;
  const std::uint32_t columns = plan.columns > ranked ? plan.columns : ranked, predicted = h.marks().columns;
  for (std::uint32_t first = blockIdx.x * kMeanThreads; first < columns; first += gridDim.x * kMeanThreads) {
    const bool computed = first < plan.columns && plan.right > plan.left && plan.too_few == 0;
    if (computed) find_filled(h, plan, first, any);
    __syncthreads();
    const std::uint32_t j = first + threadIdx.x;
    if (j < plan.columns) h.scores()[j] = score_of(h, plan, any, first, j);
    // Blocks opened since the prediction: what the newest row has there.
    if (j < ranked) out[j] = j < predicted ? h.scores()[j] : share_at(h.row(h.state().end - 1), h.all.shape.form, j);
    __syncthreads();
  }
}
