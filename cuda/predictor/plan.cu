#include "cuda/predictor/plan.h"

#include "cuda/policy/image.cuh"
#include "cuda/predictor/history.cuh"
#include "cuda/predictor/tile.h"

using namespace kvsift;

namespace {

template <class T>
__device__ T least(T a, T b) {
  return a < b ? a : b;
}
template <class T>
__device__ T most(T a, T b) {
  return a > b ? a : b;
}

struct RowRange {
  std::uint64_t begin, end;
};

// Rows of the window whose s was computed from the same rows, and the same padding, as it would be now.
__device__ RowRange rows_that_hold(const PredictorState &state, std::uint64_t begin, std::uint64_t end) {
  RowRange r{most(begin, state.s_begin), least(end, state.s_end)};
  if (state.s_top != begin) r.begin = most(r.begin, most(state.s_top, begin) + kReach);
  if (state.s_bottom != end) {
    const std::uint64_t bottom = least(state.s_bottom, end);
    r.end = least(r.end, bottom < kReach ? 0 : bottom - kReach);
  }
  if (r.begin >= r.end) r.begin = r.end = end;
  return r;
}

__device__ PlannedRows planned(std::uint64_t row, std::uint64_t count, std::uint32_t first, std::uint32_t right) {
  PlannedRows part{static_cast<std::uint32_t>(row), static_cast<std::uint32_t>(count), first, 0};
  if (first < right) part.tiles = (right - first + kTile - 1) / kTile;
  return part;
}

// The sum over the window of a column that is empty in all rows.
__device__ float sum_of_empty(const EmptyScores &empty, std::uint32_t rows) {
  const float first = empty.s[rows == 1 ? 3 : 1][0], inside = empty.s[0][0], last = empty.s[2][0];
  float sum = first + 0.0f;
  for (std::uint32_t r = 1; r + 1 < rows; ++r) sum += inside;
  return rows > 1 ? sum + last : sum;
}

// Rows that are computed from the crop's first column on: nothing in them is marked yet.
__device__ void clear_marks(const History &h, const PredictionPlan &plan, const PlannedRows &part, std::uint32_t lane) {
  if (part.tiles == 0 || part.first != h.all.shape.left) return;
  const std::uint32_t groups = (h.all.shape.columns + kLanes - 1) / kLanes;
  for (std::uint32_t r = 0; r < part.count; ++r) {
    std::uint8_t *filled = h.filled(h.s_slot(plan, part.row + r));
    for (std::uint32_t g = lane; g < groups; g += kWarpThreads) filled[g] = 0;
  }
}

// Works on a copy of the state; true where the network has something to compute.
__device__ bool plan_parts(const History &h, std::uint64_t end, PredictorState *state, PredictionPlan *plan) {
  const PredictorShape &shape = h.all.shape;
  if (state->s_bottom > end) {
    state->s_bottom = end;
    state->s_end = least(state->s_end, end < kReach ? 0 : end - kReach);
  }
  const std::uint32_t right = plan->columns < shape.local ? 0 : plan->columns - shape.local;
  plan->left = shape.left;
  plan->right = most(right, shape.left);
  if (right <= shape.left) return false;
  plan->begin = h.window_begin(end);
  plan->rows = static_cast<std::uint32_t>(end - plan->begin);
  plan->too_few = right - shape.left < 3 || plan->rows == 0;
  if (plan->too_few != 0) return false;
  plan->ring_slot = remainder_of(plan->begin, shape.slots);
  plan->s_slot = remainder_of(plan->begin, shape.rows);
  std::uint32_t edge = right;
  if (right != state->s_right) {
    edge = least(right, state->s_right);
    edge = edge < shape.left + kReach ? shape.left : edge - kReach;
  }
  const std::uint64_t begin = plan->begin;
  const RowRange kept = h.all.plain != 0 ? RowRange{end, end} : rows_that_hold(*state, begin, end);
  plan->part[0] = planned(0, kept.begin - begin, shape.left, right);
  plan->part[1] = planned(kept.begin - begin, kept.end - kept.begin, edge, right);
  plan->part[2] = planned(kept.end - begin, end - kept.end, shape.left, right);
  plan->scale = 1.0f / static_cast<float>(plan->rows);
  plan->nothing = __fmaf_rn(sum_of_empty(h.state().empty, plan->rows), plan->scale, h.all.predictor->weights.bias3);
  state->s_begin = state->s_top = begin;
  state->s_end = state->s_bottom = end;
  state->s_right = right;
  state->total += std::uint64_t{plan->rows} * (right - shape.left);
  return true;
}

__device__ void plan_list(const History &h, std::uint64_t end, std::uint32_t columns, PredictionPlan *to, std::uint32_t lane) {
  PredictorState state = h.state();
  PredictionPlan plan{};
  plan.columns = columns;
  const bool computes = plan_parts(h, end, &state, &plan);
  if (computes) {
#pragma unroll
    for (int i = 0; i < 3; ++i) clear_marks(h, plan, plan.part[i], lane);
  }
  __syncwarp();
  if (lane != 0) return;
  *to = plan;
  if (computes) {
    auto *total = reinterpret_cast<unsigned long long *>(&h.counters().columns_total);
    atomicAdd(total, static_cast<unsigned long long>(state.total - h.state().total));
  }
  h.state() = state;
}

// Whether the step that the prediction is for ranks blocks at all.
__device__ bool is_wanted(const PredictorPlanArgs &args, const History &h) {
  if (args.plan_for == kPlanAlways) return true;
  std::uint32_t tokens;
  if (args.plan_for == kPlanForCall) {
    tokens = tokens_of(args.call);
  } else {
    tokens = most(h.at<Unit>(0)->rows_seen, progress_of(args.call.image)->tokens) + 1;
  }
  return !attends_to_all(args.call.image.s, tokens);
}

}  // namespace

// A block for each KV head, a warp for each list in turn.
KVSIFT_KERNEL(predictor_plan, PredictorPlanArgs, 256) {
  const Histories &all = args.histories;
  const std::uint32_t first = blockIdx.x * all.lists, lane = threadIdx.x % kWarpThreads;
  const History of_head(all, first);
  const std::uint64_t end = of_head.state().end, scored = of_head.marks().scored;
  const std::uint64_t rows = end - remainder_of(end - of_head.marks().prompt_end, all.period);
  const bool needed = scored != rows && rows != 0 && is_wanted(args, of_head);
  const std::uint32_t columns = needed ? of_head.columns_at(rows) : 0;
  __syncthreads();
  for (std::uint32_t list = threadIdx.x / kWarpThreads; list < all.lists; list += blockDim.x / kWarpThreads) {
    if (needed) {
      plan_list(History(all, first + list), rows, columns, all.plans + first + list, lane);
    } else if (lane == 0) {
      all.plans[first + list].columns = 0;
    }
  }
  if (needed && threadIdx.x == 0) {
    of_head.marks().scored = rows;
    of_head.marks().columns = columns;
  }
}
