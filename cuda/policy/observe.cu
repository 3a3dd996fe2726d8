#include "cuda/core/block.cuh"
#include "cuda/policy/lists.cuh"
#include "cuda/policy/steps.h"
#include "cuda/policy/undo.cuh"

namespace kvsift {
namespace {

struct Share {
  float peak, mass;
};

// Block `i` of query head `g` of the group.
__device__ inline Share share_of_block(const ObserveArgs &args, const DeviceHead &head, std::uint32_t g, std::uint32_t i) {
  const std::uint64_t query_head = std::uint64_t{head.kv_head} * head.settings().group + g;
  const float log_sum = args.log_sum_exp[query_head];
  const float max = args.block_max == nullptr ? -infinity() : args.block_max[query_head * args.block_stride + i];
  Share share{exp1(max - log_sum), 0.0f};
  if (args.block_mass != nullptr) share.mass = args.block_mass[query_head * args.block_stride + i];
  const bool plausible = max == -infinity() || max <= log_sum + 1e-2f * (1 + fabsf(log_sum));
  if (!plausible || log_sum - log_sum != 0.0f || !(share.mass >= 0.0f && share.mass <= 1.01f)) {
    report(args.call, kFaultObservation, head.kv_head);
  }
  return share;
}

__device__ inline Share share_of_row(const ObserveArgs &args, const DeviceHead &head, std::uint32_t g, std::uint32_t i,
                                     std::uint32_t tokens) {
  const std::uint64_t query_head = std::uint64_t{head.kv_head} * head.settings().group + g;
  const float *row = args.rows + query_head * args.row_stride;
  const std::uint32_t size = head.settings().c.block_tokens, begin = i * size;
  const std::uint32_t end = tokens - begin < size ? tokens : begin + size;
  Share share{0.0f, 0.0f};
  for (std::uint32_t t = begin; t < end; ++t) {
    share.peak = row[t] > share.peak ? row[t] : share.peak;
    share.mass = share.mass + row[t];
    if (!(row[t] >= 0.0f && row[t] <= 1.01f)) report(args.call, kFaultObservation, head.kv_head);
  }
  return share;
}

__device__ inline float joined(std::uint32_t grouping, float all, float x) {
  if (grouping == KVSIFT_GROUP_MEAN) return all + x;
  return x > all ? x : all;
}

// Attention mass on the blocks that were, or would have been, kept; one thread adds in the order of the list.
__device__ inline void count_recovery(const DeviceHead &head, std::uint32_t tokens, const Scratch &scratch) {
  __shared__ float masses[256];
  const Settings &s = head.settings();
  const HeadMarks marks = *head.marks();
  if (marks.listed_layer != head.layer || marks.listed_tokens != tokens) return;
  Counters &counters = head.unit()->counters;
  for (std::uint32_t l = 0; l < s.lists; ++l) {
    const DeviceList list = list_of(head.image, head.kv_head * s.lists + l);
    const std::uint32_t count = *list.block_count;
    double kept = 0;
    for (std::uint32_t first = 0; first < count; first += blockDim.x) {
      const std::uint32_t i = first + threadIdx.x;
      if (i < count) masses[threadIdx.x] = scratch.spare[l * scratch.stride + list.blocks[i]];
      __syncthreads();
      for (std::uint32_t k = 0; threadIdx.x == 0 && k < blockDim.x && first + k < count; ++k) {
        kept += static_cast<double>(masses[k]);
      }
      __syncthreads();
    }
    if (threadIdx.x != 0 || count == 0) continue;
    ++counters.calibrations;
    counters.recovery_sum += kept;
  }
}

}  // namespace
}  // namespace kvsift

using namespace kvsift;

// Peaks to scratch.scores, masses to scratch.spare, reduced to the lists of the KV head.
KVSIFT_KERNEL(observe_pool, ObserveArgs, 256) {
  const DeviceHead head = head_of(args.call);
  const Settings &s = args.call.image.s;
  const std::uint32_t tokens = tokens_of(args.call), blocks = blocks_of(tokens, s.c.block_tokens);
  const Scratch scratch = head.scratch();
  const bool shares = s.c.grouping != KVSIFT_GROUP_QUERY_HEAD;
  if (blockIdx.x == 0 && threadIdx.x == 0) head.marks()->tail_tokens = 0;
  for (std::uint32_t i = blockIdx.x * blockDim.x + threadIdx.x; i < blocks; i += gridDim.x * blockDim.x) {
    Share all{0.0f, 0.0f};
    for (std::uint32_t g = 0; g < s.group; ++g) {
      const Share share = args.rows == nullptr ? share_of_block(args, head, g, i) : share_of_row(args, head, g, i, tokens);
      if (shares && g > 0) {
        all.peak = joined(s.c.grouping, all.peak, share.peak);
        all.mass = joined(s.c.grouping, all.mass, share.mass);
        continue;
      }
      all = share;
      if (shares) continue;
      scratch.scores[g * scratch.stride + i] = share.peak;
      if (args.has_mass != 0) scratch.spare[g * scratch.stride + i] = share.mass;
    }
    if (!shares) continue;
    const float part = 1.0f / static_cast<float>(s.group);
    const bool mean = s.c.grouping == KVSIFT_GROUP_MEAN && s.group > 0;
    scratch.scores[i] = mean ? __fmaf_rn(part, all.peak, 0.0f * all.peak) : all.peak;
    if (args.has_mass != 0) scratch.spare[i] = mean ? __fmaf_rn(part, all.mass, 0.0f * all.mass) : all.mass;
  }
}

// Before the method takes the rows in; a block for each KV head.
KVSIFT_KERNEL(observe_begin, ObserveArgs, 256) {
  const DeviceHead head = head_of(args.call);
  const std::uint32_t tokens = tokens_of(args.call);
  const StepRecord step = *head.step();
  const bool prompt = head.unit()->selected_for != tokens;
  const bool full = args.full == kFullFromStep ? step.everything != 0 || step.calibration != 0 : args.full != 0;
  if (full && !prompt && args.has_mass != 0) count_recovery(head, tokens, head.scratch());
  if (!prompt) remember(head, tokens - 1);
  __syncthreads();
  if (threadIdx.x == 0) head.unit()->rows_seen = tokens;
}
