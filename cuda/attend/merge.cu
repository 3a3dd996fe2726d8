#include "cuda/attend/plan.cuh"

namespace kvsift {
namespace {

struct MergeShared {
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

// Chunks [0, chunks) of a query head in their order; each thread one column. The factors do not depend on the values, so
// they are made first, a thread for each chunk.
__device__ inline Merged merge_chunks(const AttendPlan &plan, std::uint32_t g, std::uint32_t chunks, bool values,
                                      MergeShared *shared) {
  const std::uint32_t dim16 = plan.head.settings().dim16, column = threadIdx.x < dim16 ? threadIdx.x : 0;
  Merged merged{-infinity(), 0.0f, 0.0f};
  for (std::uint32_t first = 0; first < chunks; first += kChunk) {
    const std::uint32_t here = chunks - first < kChunk ? chunks - first : kChunk, i = threadIdx.x;
    const float *sums = plan.sums(plan.place(g, first + (i < here ? i : 0)));
    const float sum = i < here ? sums[1] : 0.0f, max = sum == 0.0f ? -infinity() : sums[0];
    const float larger = max_through(max, merged.max, shared);
    shared->own[i] = larger;
    __syncthreads();
    const float before = i == 0 ? merged.max : shared->own[i - 1], last = shared->own[kChunk - 1];
    __syncthreads();
    shared->own[i] = exp1(before - larger);
    shared->others[i] = exp1(max - larger);
    shared->sums[i] = sum;
    __syncthreads();
    const float *row = plan.values(plan.place(g, first)) + column;
#pragma unroll 8
    for (std::uint32_t c = 0; c < here; ++c) {
      if (shared->sums[c] == 0.0f) continue;
      const float a = shared->own[c], b = shared->others[c];
      merged.sum = __fmaf_rn(a, merged.sum, b * shared->sums[c]);
      if (values) merged.value = __fmaf_rn(a, merged.value, b * row[std::uint64_t{c} * dim16]);
    }
    merged.max = last;
    __syncthreads();
  }
  return merged;
}

__device__ inline float log_add(float a, float b) {
  const float larger = a > b ? a : b;
  return larger + log1(exp1(a - larger) + exp1(b - larger));
}

// Joins the blocks that two chunks share, and makes shares of masses.
__device__ inline void finish_blocks(const AttendPlan &plan, std::uint32_t g, float log_sum) {
  const AttendArgs &args = plan.args;
  float *max = args.block_max + plan.query_head(g) * args.block_stride;
  float *mass = args.block_mass == nullptr ? nullptr : args.block_mass + plan.query_head(g) * args.block_stride;
  const std::uint32_t chunks = plan.kept_chunks(plan.list_of_query(g));
  for (std::uint32_t c = threadIdx.x; c < chunks; c += kAttendThreads) {
    const Carry carry = *plan.carry(plan.place(g, c));
    if (carry.block == 0xffffffffu) continue;
    if (carry.max > max[carry.block]) max[carry.block] = carry.max;
    if (mass == nullptr) continue;
    const float own = mass[carry.block];
    mass[carry.block] = own > -infinity() ? log_add(own, carry.log_mass) : carry.log_mass;
  }
  __syncthreads();
  const std::uint32_t blocks = blocks_of(plan.step.tokens, plan.head.settings().c.block_tokens);
  for (std::uint32_t b = threadIdx.x; b < blocks && mass != nullptr; b += kAttendThreads) {
    mass[b] = log_sum > -infinity() ? exp1(mass[b] - log_sum) : 0.0f;
  }
}

}  // namespace
}  // namespace kvsift

using namespace kvsift;

// A block for each query head.
KVSIFT_KERNEL(attend_merge, AttendArgs, kAttendThreads) {
  __shared__ MergeShared shared;
  const DeviceHead head = head_of(args.call);
  const AttendPlan plan = plan_of(args, head);
  if (!plan.active) return;
  const Settings &s = args.call.image.s;
  const std::uint32_t g = blockIdx.x, chunks = plan.chunks(plan.list_of_query(g)) + plan.tail_chunks();
  const bool values = args.row_only == 0;
  const Merged merged = merge_chunks(plan, g, chunks, values, &shared);
  const float log_sum = merged.sum > 0.0f ? merged.max + log1(merged.sum) : -infinity();
  if (values && threadIdx.x < s.c.head_dim) {
    const float inverse = merged.sum > 0.0f ? 1.0f / merged.sum : 0.0f, out = merged.value * inverse;
    args.out[plan.query_head(g) * s.c.head_dim + threadIdx.x] = out;
    if (out - out != 0.0f) report(args.call, kFaultAttention, head.kv_head);
  }
  if (threadIdx.x == 0 && args.log_sum_exp != nullptr && (plan.observes || args.tail_only != 0)) {
    args.log_sum_exp[plan.query_head(g)] = log_sum;
  }
  if (threadIdx.x == 0 && args.tail_only == 0 && log_sum - log_sum != 0.0f) report(args.call, kFaultAttention, head.kv_head);
  if (plan.observes) finish_blocks(plan, g, log_sum);
}
