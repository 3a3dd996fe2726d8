#include "cuda/attend/plan.cuh"
#include "cuda/core/copy.cuh"

namespace kvsift {
namespace {

constexpr std::uint32_t kMergeRows = 64;  // chunks whose values are in one half of the stage

struct MergeShared {
  alignas(16) float stage[2][kMergeRows][kMergeColumns];
  float own[kChunk], others[kChunk], sums[kChunk];  // the factors of what came before and of the chunk; the chunk's sum
  float of_warp[kChunk / kWarpThreads];
};

// The largest x of this thread and those before it, and of `most`.
__device__ inline float max_through(float x, float most, MergeShared *shared) {
  const std::uint32_t lane = threadIdx.x % kWarpThreads, warp = threadIdx.x / kWarpThreads;
#pragma unroll
  for (unsigned step = 1; step < kWarpThreads; step *= 2) {
    const float other = __shfl_up_sync(kAllLanes, x, step);
    if (lane >= step && other > x) x = other;
  }
  if (lane == kWarpThreads - 1) shared->of_warp[warp] = x;
  __syncthreads();
  x = most > x ? most : x;
  for (std::uint32_t w = 0; w < warp; ++w) x = shared->of_warp[w] > x ? shared->of_warp[w] : x;
  __syncthreads();
  return x;
}

struct Merged {
  float max, sum, value;  // the thread's column
};

// What a block merges: columns [column, column + kMergeColumns) of chunks [0, chunks) of a query head.
struct MergeWork {
  const AttendPlan &plan;
  std::uint32_t g, chunks, column;
};

// Values of chunks [stage * kMergeRows, ...) on their way into their half of the stage.
__device__ inline void fetch_values(const MergeWork &work, std::uint32_t stage, MergeShared *shared) {
  constexpr std::uint32_t kPieces = kMergeColumns / 4;
  const std::uint32_t first = stage * kMergeRows, dim16 = work.plan.head.settings().dim16;
  const std::uint32_t left = first < work.chunks ? work.chunks - first : 0, here = left < kMergeRows ? left : kMergeRows;
  for (std::uint32_t i = threadIdx.x; i < here * kPieces; i += kMergeThreads) {
    const std::uint32_t row = i / kPieces, at = i % kPieces * 4;
    if (work.column + at >= dim16) continue;
    const float *from = work.plan.values(work.plan.place(work.g, first + row)) + work.column + at;
    copy_async(&shared->stage[stage % 2][row][at], from);
  }
  end_copies();
}

// The factors of chunks [first, first + here), which do not depend on the values: a thread for each. Returns the maximum
// through the last of them.
__device__ inline float find_factors(const MergeWork &work, std::uint32_t first, float most, MergeShared *shared) {
  const std::uint32_t left = work.chunks - first, here = left < kChunk ? left : kChunk, i = threadIdx.x;
  const float *sums = work.plan.sums(work.plan.place(work.g, first + (i < here ? i : 0)));
  const float sum = i < here ? sums[1] : 0.0f, max = sum == 0.0f ? -infinity() : sums[0];
  const float larger = max_through(max, most, shared);
  shared->own[i] = larger;
  __syncthreads();
  const float before = i == 0 ? most : shared->own[i - 1], last = shared->own[kChunk - 1];
  __syncthreads();
  shared->own[i] = exp1(before - larger);
  shared->others[i] = exp1(max - larger);
  shared->sums[i] = sum;
  __syncthreads();
  return last;
}

// In the order of the chunks; a chunk without a sum counts for nothing.
__device__ inline void add_chunks(const MergeWork &work, std::uint32_t stage, bool values, const MergeShared &shared,
                                  Merged *merged) {
  const std::uint32_t first = stage * kMergeRows, left = work.chunks - first, here = left < kMergeRows ? left : kMergeRows;
  const std::uint32_t column = threadIdx.x % kMergeColumns;
#pragma unroll 8
  for (std::uint32_t r = 0; r < here; ++r) {
    const std::uint32_t c = (first + r) % kChunk;
    const float a = shared.own[c], b = shared.others[c], of_chunk = shared.sums[c];
    const float sum = __fmaf_rn(a, merged->sum, b * of_chunk);
    const float value = __fmaf_rn(a, merged->value, b * shared.stage[stage % 2][r][column]);
    merged->sum = of_chunk == 0.0f ? merged->sum : sum;
    merged->value = of_chunk == 0.0f || !values ? merged->value : value;
  }
}

// Every warp has the sums, the first one the values.
__device__ inline Merged merge_chunks(const MergeWork &work, bool values, MergeShared *shared) {
  Merged merged{-infinity(), 0.0f, 0.0f};
  if (values) {
    fetch_values(work, 0, shared);
    fetch_values(work, 1, shared);
  }
  for (std::uint32_t stage = 0; stage * kMergeRows < work.chunks; ++stage) {
    if (stage * kMergeRows % kChunk == 0) merged.max = find_factors(work, stage * kMergeRows, merged.max, shared);
    wait_copies<1>();
    __syncthreads();
    add_chunks(work, stage, values, *shared, &merged);
    __syncthreads();
    if (values) fetch_values(work, stage + 2, shared);
  }
  return merged;
}

__device__ inline float log_add(float a, float b) {
  const float larger = a > b ? a : b;
  return larger + log1(exp1(a - larger) + exp1(b - larger));
}

// Shares of single tokens; a chunk's carry names its first.
__device__ inline void finish_weights(const AttendPlan &plan, std::uint32_t g, float log_sum) {
  float *mass = plan.args.block_mass + plan.query_head(g) * plan.args.block_stride;
  const std::uint32_t chunks = plan.kept_chunks(plan.list_of_query(g));
  for (std::uint32_t c = 0; c < chunks; ++c) {
    const std::uint64_t place = plan.place(g, c);
    const std::uint32_t end = c + 1 < chunks ? plan.carry(plan.place(g, c + 1))->block : plan.step.tokens;
    const float share = exp1(plan.sums(place)[0] - log_sum);
    for (std::uint32_t t = plan.carry(place)->block + threadIdx.x; t < end; t += kMergeThreads) {
      mass[t] = __fmaf_rn(share, mass[t], 0.0f * mass[t]);
    }
  }
}

// Joins the blocks that two chunks share, and makes shares of masses.
__device__ inline void finish_blocks(const AttendPlan &plan, std::uint32_t g, float log_sum) {
  const AttendArgs &args = plan.args;
  const std::uint64_t row = plan.query_head(g) * args.block_stride;
  float *max = args.block_max == nullptr ? nullptr : args.block_max + row;
  float *mass = args.block_mass == nullptr ? nullptr : args.block_mass + row;
  const std::uint32_t size = plan.head.settings().c.block_tokens;
  const std::uint32_t chunks = plan.kept_chunks(plan.list_of_query(g));
  for (std::uint32_t c = threadIdx.x; c < chunks; c += kMergeThreads) {
    const Carry carry = *plan.carry(plan.place(g, c));
    if (carry.block == 0xffffffffu || size == 1) continue;
    if (max != nullptr && carry.max > max[carry.block]) max[carry.block] = carry.max;
    if (mass == nullptr) continue;
    const float own = mass[carry.block];
    mass[carry.block] = own > -infinity() ? log_add(own, carry.log_mass) : carry.log_mass;
  }
  if (plan.keeps_weights()) return finish_weights(plan, g, log_sum);
  __syncthreads();
  const std::uint32_t blocks = blocks_of(plan.step.tokens, size);
  for (std::uint32_t b = threadIdx.x; b < blocks && mass != nullptr; b += kMergeThreads) {
    mass[b] = log_sum > -infinity() ? exp1(mass[b] - log_sum) : 0.0f;
  }
}

}  // namespace
}  // namespace kvsift

using namespace kvsift;

// Blocks: [query heads of the group, the columns' parts in each][KV heads].
KVSIFT_KERNEL(attend_merge, AttendArgs, kMergeThreads) {
  __shared__ MergeShared shared;
  const DeviceHead head = head_of(args.call);
  const AttendPlan plan = plan_of(args, head);
  if (!plan.active) return;
  const Settings &s = args.call.image.s;
  const std::uint32_t parts = gridDim.x / s.group, g = blockIdx.x / parts, part = blockIdx.x % parts;
  const MergeWork work{plan, g, plan.chunks(plan.list_of_query(g)) + plan.tail_chunks(), part * kMergeColumns};
  const bool values = args.row_only == 0;
  const Merged merged = merge_chunks(work, values, &shared);
  const float log_sum = merged.sum > 0.0f ? merged.max + log1(merged.sum) : -infinity();
  const std::uint32_t column = work.column + threadIdx.x;
  if (values && threadIdx.x < kMergeColumns && column < s.c.head_dim) {
    const float inverse = merged.sum > 0.0f ? 1.0f / merged.sum : 0.0f, out = merged.value * inverse;
    args.out[plan.query_head(g) * s.c.head_dim + column] = out;
    if (out - out != 0.0f) report(args.call, kFaultAttention, head.kv_head);
  }
  if (part != 0) return;
  if (threadIdx.x == 0 && args.log_sum_exp != nullptr && (plan.observes || args.tail_only != 0)) {
    args.log_sum_exp[plan.query_head(g)] = log_sum;
  }
  if (threadIdx.x == 0 && args.tail_only == 0 && log_sum - log_sum != 0.0f) report(args.call, kFaultAttention, head.kv_head);
  if (plan.observes) finish_blocks(plan, g, log_sum);
}
