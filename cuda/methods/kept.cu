#include "cuda/methods/kept.h"

#include "core/philox.h"
#include "cuda/core/last.cuh"
#include "cuda/policy/lists.cuh"
#include "cuda/policy/top_blocks.cuh"
#include "methods/snapkv.h"
#include "methods/uniform.h"

namespace kvsift {
namespace {

struct KeepWork {
  const KeepArgs &args;
  const DeviceHead &head;
  std::uint32_t list, prompt;

  __device__ const Settings &settings() const { return head.settings(); }
  __device__ std::uint32_t *kept(std::uint32_t of) const {
    return head.at<std::uint32_t>(head.image.at.kept) + std::uint64_t{of} * settings().kept_blocks;
  }
  __device__ std::uint32_t *kept_count(std::uint32_t of) const {
    return head.at<std::uint32_t>(head.image.at.kept_counts) + of;
  }
  // A row of the head's scratch for each list.
  __device__ float *scores() const {
    const Scratch scratch = head.scratch();
    return scratch.scores + list * scratch.stride;
  }
};

// Of each list; attention reads it too.
__device__ inline std::uint32_t *tokens_kept(const Image &image) {
  return in_image<std::uint32_t>(image, image.room.kept_counts);
}

__device__ inline std::uint32_t prompt_of(const Progress &progress) {
  return progress.decode_steps == 0 ? progress.tokens : progress.first_prompt;
}

// As smooth of methods/snapkv.cpp.
__device__ inline float smoothed(const kvsift_policy_config &c, const float *votes, std::uint32_t count, std::uint32_t i) {
  const std::uint32_t reach = c.pool_kernel / 2;
  const std::uint32_t begin = i > reach ? i - reach : 0, end = count - i > reach ? i + reach + 1 : count;
  float sum = 0.0f, best = -infinity();
  for (std::uint32_t j = begin; j < end; ++j) {
    sum = sum + votes[j];
    best = votes[j] > best ? votes[j] : best;
  }
  return c.pooling == KVSIFT_POOL_AVG ? sum / static_cast<float>(c.pool_kernel) : best;
}

__device__ inline std::uint32_t keep_best(const KeepWork &work, std::uint32_t budget) {
  const Settings &s = work.settings();
  const std::uint32_t local = s.prompt_local < work.prompt ? s.prompt_local : work.prompt;
  const std::uint32_t fixed = s.c.sink_tokens + local, size = s.c.block_tokens;
  const std::uint32_t begin = s.c.sink_tokens / size, end = (work.prompt - local) / size;
  const std::uint32_t k = budget > fixed ? (budget - fixed) / size : 0;
  const float *votes = work.head.state<float>(0) + std::uint64_t{work.list} * s.max_blocks;
  float *scores = work.scores();
  for (std::uint32_t i = threadIdx.x; i < end; i += blockDim.x) scores[i] = smoothed(s.c, votes, end, i);
  __syncthreads();
  if (end <= begin) return 0;
  return top_blocks(scores, begin, end - begin, k < s.kept_blocks ? k : s.kept_blocks, work.kept(work.list));
}

__device__ inline std::uint32_t keep_random(const KeepWork &work) {
  const Settings &s = work.settings();
  const std::uint32_t size = s.c.block_tokens, fixed = s.c.sink_tokens + s.c.local_tokens;
  const std::uint32_t begin = blocks_of(s.c.sink_tokens, size);
  const std::uint32_t end = work.prompt > s.c.local_tokens ? (work.prompt - s.c.local_tokens) / size : 0;
  const std::uint32_t query_head = work.head.kv_head * s.lists + work.list;
  float *draws = work.scores();
  for (std::uint32_t i = begin + threadIdx.x; i < end; i += blockDim.x) {
    draws[i] = uniform_of(philox_at(s.c.seed, work.head.layer, query_head, i, kUniformDraw).word[0]);
  }
  __syncthreads();
  if (end <= begin) return 0;
  return top_blocks(draws, begin, end - begin, (budget_at(s.c, work.prompt) - fixed) / size, work.kept(work.list));
}

__device__ inline void decide(const KeepWork &work) {
  const kvsift_policy_config &c = work.settings().c;
  std::uint32_t count = 0;
  if (work.prompt > 0 && work.args.method == KVSIFT_METHOD_UNIFORM) {
    count = keep_random(work);
  } else if (work.prompt > 0) {
    const bool pyramid = work.args.method == KVSIFT_METHOD_PYRAMIDKV;
    count = keep_best(work, pyramid ? snapkv::pyramid_budget(c, work.head.layer, work.prompt) : budget_at(c, work.prompt));
  }
  if (threadIdx.x == 0) *work.kept_count(work.list) = count;
  __syncthreads();
}

__device__ inline Parts kept_parts(const KeepWork &work, std::uint32_t list, std::uint32_t tokens) {
  const Settings &s = work.settings();
  const std::uint32_t sinks = s.c.sink_tokens < tokens ? s.c.sink_tokens : tokens;
  const std::uint32_t local_begin = work.prompt > s.prompt_local ? work.prompt - s.prompt_local : 0;
  Parts p{work.kept(list), 0, s.c.block_tokens, sinks, local_begin, tokens};
  p.count = first_from(p.chosen, *work.kept_count(list), blocks_of(local_begin, p.size));
  return p;
}

// Tokens of a list's kept blocks, between the sinks and the newest ones, that no earlier list keeps.
__device__ inline std::uint32_t tokens_of_own(const KeepWork &work, std::uint32_t list, const Parts &parts) {
  std::uint32_t tokens = 0;
  for (std::uint32_t i = threadIdx.x; i < parts.count; i += blockDim.x) {
    const std::uint32_t block = parts.chosen[i];
    bool known = false;
    for (std::uint32_t other = 0; other < list && !known; ++other) {
      const std::uint32_t count = *work.kept_count(other), at = first_from(work.kept(other), count, block);
      known = at < count && work.kept(other)[at] == block;
    }
    std::uint32_t begin = block * parts.size, end = begin + parts.size;
    if (begin < parts.sink_end) begin = parts.sink_end;
    if (end > parts.local_begin) end = parts.local_begin;
    if (!known && begin < end) tokens += end - begin;
  }
  return tokens;
}

// Once all lists are written.
__device__ inline void count_step(const KeepWork &work, std::uint32_t tokens, bool everything) {
  const Settings &s = work.settings();
  std::uint32_t own = 0;
  for (std::uint32_t list = 0; list < s.lists && !everything; ++list) {
    own += tokens_of_own(work, list, kept_parts(work, list, tokens));
  }
  own = block_sum(own);
  if (threadIdx.x != 0) return;
  Unit *unit = work.head.unit();
  unit->selected_for = tokens;
  if (everything) {
    unit->counters.tokens_read += tokens;
    return;
  }
  const Parts fixed = kept_parts(work, 0, tokens);
  const std::uint32_t local = fixed.local_begin > fixed.sink_end ? fixed.local_begin : fixed.sink_end;
  unit->counters.tokens_read += own + fixed.sink_end + (tokens - local);
  unit->counters.selections += s.lists;
  const std::uint32_t *kept = tokens_kept(work.head.image) + work.head.kv_head * s.lists;
  for (std::uint32_t list = 0; list < s.lists; ++list) unit->counters.tokens_kept += kept[list];
  unit->counters.tokens_total += std::uint64_t{s.lists} * tokens;
  unit->prompt_tokens = work.prompt;
  unit->decided = 1;
}

__device__ inline void leave_marks(const KeepWork &work, std::uint32_t tokens, bool everything) {
  *work.head.marks() = HeadMarks{work.head.layer, tokens, 0, 0};
  const std::uint32_t kind = everything ? static_cast<std::uint32_t>(KVSIFT_TAIL_NONE) : work.settings().c.tail;
  *work.head.step() = StepRecord{tokens, everything, 0, kind};
  if (blockIdx.y == 0) progress_of(work.head.image)->selected_for = tokens;
}

}  // namespace
}  // namespace kvsift

using namespace kvsift;

KVSIFT_KERNEL(select_kept, KeepArgs, kKeepThreads) {
  const DeviceHead head = head_of(args.call);
  const Settings &s = args.call.image.s;
  const std::uint32_t tokens = tokens_of(args.call), prompt = prompt_of(*progress_of(args.call.image));
  const KeepWork work{args, head, blockIdx.x, prompt};
  const std::uint32_t index = head.kv_head * s.lists + work.list;
  const bool dense = args.call.layer < s.c.dense_layers;
  // Decoded tokens are kept beside the budget.
  const bool everything = dense || tokens <= s.dense_tokens || budget_at(s.c, prompt) >= prompt;
  if (tokens > s.c.max_tokens) {
    if (threadIdx.x == 0) report(args.call, kFaultCapacity, head.kv_head);
    return;
  }
  const bool decided = dense || (head.unit()->decided != 0 && head.unit()->prompt_tokens == prompt);
  const DeviceList list = list_of(args.call.image, index);
  if (threadIdx.x == 0) {
    *list.block_count = 0;
    in_image<std::uint32_t>(args.call.image, args.call.image.missed_counts)[index] = 0;
  }
  if (!everything) {
    if (!decided) decide(work);
    const Parts parts = kept_parts(work, work.list, tokens);
    const std::uint32_t kept = write_ranges(list, parts);
    write_blocks(list, parts);
    if (threadIdx.x == 0) tokens_kept(args.call.image)[index] = kept;
  } else {
    write_everything(list, tokens);
  }
  std::uint32_t *tickets = in_image<std::uint32_t>(args.call.image, args.call.image.room.tickets) + head.kv_head;
  if (!is_last_block(tickets, s.lists)) return;
  if (!dense) count_step(work, tokens, everything);
  if (threadIdx.x == 0) leave_marks(work, tokens, everything);
}
