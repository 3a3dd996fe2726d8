#include "cuda/policy/choose.h"

#include "cuda/policy/late.cuh"
#include "cuda/policy/step.cuh"
#include "cuda/policy/target.cuh"

namespace kvsift {
namespace {

// One list of a KV head, and the room of the device that belongs to it.
struct ListWork {
  const ChooseArgs &args;
  const DeviceHead &head;
  std::uint32_t list, index;

  __device__ const Image &image() const { return head.image; }
  __device__ std::uint32_t *chosen(std::uint32_t of) const {
    return in_image<std::uint32_t>(image(), image().room.chosen) + std::uint64_t{of} * image().s.list_blocks;
  }
  __device__ std::uint32_t *chosen_count(std::uint32_t of) const {
    return in_image<std::uint32_t>(image(), image().room.chosen_counts) + of;
  }
  __device__ std::uint32_t *kept_count(std::uint32_t of) const {
    return in_image<std::uint32_t>(image(), image().room.kept_counts) + of;
  }
  __device__ std::uint32_t *missed_count(std::uint32_t of) const {
    return in_image<std::uint32_t>(image(), image().missed_counts) + of;
  }
};

// Row sums of exp(x - max), lane i adding elements i, i + 16 ...; rows of the group, in place.
__device__ inline void soften_group(std::uint32_t group, std::uint32_t count, float *scores, std::uint64_t stride, float *inverse) {
  __shared__ float lanes[KVSIFT_MAX_GROUP][16];
  for (std::uint32_t g = 0; g < group; ++g) {
    float *row = scores + g * stride;
    float max = -infinity();
    for (std::uint32_t i = threadIdx.x; i < count; i += blockDim.x) max = row[i] > max ? row[i] : max;
    max = block_max(max);
    for (std::uint32_t i = threadIdx.x; i < count; i += blockDim.x) row[i] = exp1(row[i] - max);
  }
  __syncthreads();
  if (threadIdx.x < group * 16) {
    const float *row = scores + threadIdx.x / 16 * stride;
    float sum = 0.0f;
#pragma unroll 8
    for (std::uint32_t i = threadIdx.x % 16; i < count; i += 16) sum = sum + row[i];
    lanes[threadIdx.x / 16][threadIdx.x % 16] = sum;
  }
  __syncthreads();
  if (threadIdx.x < group) inverse[threadIdx.x] = 1.0f / tree16(lanes[threadIdx.x]);
  __syncthreads();
}

// As reduce_group of policy/group.h: one row of shares from those of the query heads, in row 0.
__device__ inline void reduce_group(const Settings &s, ScoreKind kind, std::uint32_t count, float *scores, std::uint64_t stride) {
  __shared__ float inverse[KVSIFT_MAX_GROUP];
  const bool soften = kind == ScoreKind::kLog;
  if (soften) soften_group(s.group, count, scores, stride, inverse);
  const float share = 1.0f / static_cast<float>(s.group);
  for (std::uint32_t i = threadIdx.x; i < count; i += blockDim.x) {
    float all = 0.0f;
    for (std::uint32_t g = 0; g < s.group; ++g) {
      const float raw = scores[g * stride + i];
      const float x = soften ? __fmaf_rn(inverse[g], raw, 0.0f * raw) : raw;
      if (g == 0) {
        all = x;
      } else if (s.c.grouping == KVSIFT_GROUP_MEAN) {
        all = all + x;
      } else {
        all = x > all ? x : all;
      }
    }
    scores[i] = s.c.grouping == KVSIFT_GROUP_MEAN ? __fmaf_rn(share, all, 0.0f * all) : all;
  }
  __syncthreads();
}

// The scores that this list ranks.
__device__ inline float *scores_of(const ListWork &work, std::uint32_t blocks) {
  const Settings &s = work.image().s;
  if (work.args.state_rows > 0) {
    return work.head.state<float>(work.args.state_rows - 1) + std::uint64_t{work.list} * s.max_blocks;
  }
  const Scratch scratch = work.head.scratch();
  if (work.args.by_query != 0 && s.c.grouping != KVSIFT_GROUP_QUERY_HEAD) {
    reduce_group(s, work.args.kind, blocks, scratch.scores, scratch.stride);
  }
  return scratch.scores + work.list * scratch.stride;
}

__device__ inline void evict_unlisted(float *scores, std::uint32_t blocks, const Parts &parts) {
  for (std::uint32_t i = threadIdx.x; i < blocks; i += blockDim.x) {
    if (i < parts.sink_blocks() || i >= parts.local_block()) continue;
    const std::uint32_t at = first_from(parts.chosen, parts.count, i);
    if (at == parts.count || parts.chosen[at] != i) scores[i] = -infinity();
  }
}

// Blocks that compete and are taken, ascending; returns how many. Careful: with a target or a late check.
template <bool kCareful>
__device__ inline std::uint32_t take_ranked(const ListWork &work, const Ranking &r, float *scores, std::uint32_t scored,
                                            std::uint32_t *chosen) {
  const std::uint32_t candidates = r.crop.end - r.crop.begin;
  if constexpr (!kCareful) return top_blocks(scores, r.crop.begin, candidates, r.k, chosen);
  const Image &image = work.image();
  const Settings &s = image.s;
  const bool by_head = s.c.grouping == KVSIFT_GROUP_QUERY_HEAD;
  std::uint32_t k = r.k;
  if (s.c.target_mass > 0) {
    const ScoreKind kind = work.args.by_query != 0 && !by_head ? ScoreKind::kShare : work.args.kind;
    auto *sorted = in_image<std::uint32_t>(image, image.room.sorted) + std::uint64_t{work.index} * s.list_blocks;
    k = blocks_for_target(s, kind, scores, scored, r.crop, r.k, chosen, sorted);
  }
  const std::uint32_t count = top_blocks(scores, r.crop.begin, candidates, k, chosen);
  if (work.args.verifies == 0) return count;
  const Scratch scratch = work.head.scratch();
  if (!by_head) reduce_group(s, ScoreKind::kLog, blocks_of(r.tokens, s.c.block_tokens), scratch.spare, scratch.stride);
  const std::uint64_t row = work.list * scratch.stride;
  std::uint32_t *missed = in_image<std::uint32_t>(image, image.missed) + std::uint64_t{work.index} * s.c.verify_blocks;
  // Scores in scratch are spent.
  auto *room = reinterpret_cast<std::uint32_t *>(scratch.scores + row);
  const std::uint32_t added = add_late(scratch.spare + row, r.crop, k, s.c.verify_blocks, room, chosen, count, missed);
  if (threadIdx.x == 0) *work.missed_count(work.index) = added;
  return count + added;
}

// The list of a step that leaves something out.
template <bool kCareful>
__device__ inline void choose(const ListWork &work, const Step &step) {
  const Settings &s = work.image().s;
  const std::uint32_t blocks = blocks_of(step.tokens, s.c.block_tokens);
  const std::uint32_t leading = work.args.leading == nullptr ? blocks : work.args.leading[blockIdx.y];
  const Ranking r = rank_for(s, step.tokens, leading);
  std::uint32_t *chosen = work.chosen(work.index), count = 0;
  float *scores = nullptr;
  if (work.args.scored != 0) {
    scores = scores_of(work, leading);
    if (r.crop.end > r.crop.begin) count = take_ranked<kCareful>(work, r, scores, leading, chosen);
  }
  const DeviceList list = list_of(work.image(), work.index);
  const Parts parts = parts_of(s, r, chosen, count);
  const std::uint32_t kept = write_ranges(list, parts);
  write_blocks(list, parts);
  if (work.args.evicts != 0) evict_unlisted(scores, blocks, parts);
  if (threadIdx.x != 0) return;
  *work.chosen_count(work.index) = parts.count;
  *work.kept_count(work.index) = kept;
}

// Tokens of chosen blocks, between the sinks and the newest ones, that no earlier list has chosen.
__device__ inline std::uint32_t tokens_of_own(const ListWork &work, std::uint32_t list, const Parts &parts) {
  const std::uint32_t first = work.index - work.list;
  std::uint32_t tokens = 0;
  for (std::uint32_t i = threadIdx.x; i < parts.count; i += blockDim.x) {
    const std::uint32_t block = parts.chosen[i];
    bool known = false;
    for (std::uint32_t other = 0; other < list && !known; ++other) {
      const std::uint32_t *theirs = work.chosen(first + other), count = *work.chosen_count(first + other);
      const std::uint32_t at = first_from(theirs, count, block);
      known = at < count && theirs[at] == block;
    }
    std::uint32_t begin = block * parts.size, end = begin + parts.size;
    if (begin < parts.sink_end) begin = parts.sink_end;
    if (end > parts.local_begin) end = parts.local_begin;
    if (!known && begin < end) tokens += end - begin;
  }
  return tokens;
}

// Once all lists of the KV head are written: tokens in at least one of them, and the unit's counters.
__device__ inline void count_step(const ListWork &work, const Step &step, bool everything) {
  const Settings &s = work.image().s;
  Unit *unit = work.head.unit();
  const Ranking r = rank_for(s, step.tokens, blocks_of(step.tokens, s.c.block_tokens));
  const std::uint32_t first = work.index - work.list;
  std::uint32_t tokens = 0;
  for (std::uint32_t list = 0; list < s.lists && !everything; ++list) {
    const Parts parts = parts_of(s, r, work.chosen(first + list), *work.chosen_count(first + list));
    tokens += tokens_of_own(work, list, parts);
  }
  tokens = block_sum(tokens);
  if (threadIdx.x != 0) return;
  const Parts fixed = parts_of(s, r, nullptr, 0);
  const std::uint32_t local = fixed.local_begin > fixed.sink_end ? fixed.local_begin : fixed.sink_end;
  unit->counters.tokens_read += everything ? step.tokens : tokens + fixed.sink_end + (step.tokens - local);
  for (std::uint32_t list = 0; list < s.lists && !step.everything; ++list) {
    ++unit->counters.selections;
    unit->counters.tokens_kept += *work.kept_count(first + list);
    unit->counters.tokens_total += step.tokens;
    if (work.args.verifies != 0) unit->counters.missed_blocks += *work.missed_count(first + list);
  }
  if (!step.everything) {
    unit->counters.state_bytes_touched += std::uint64_t{blocks_of(step.tokens, s.c.block_tokens)} * work.args.bytes_of_block;
  }
  unit->selected_for = step.tokens;
}

// Whether this block is the last of its KV head's.
__device__ inline bool is_last(const ListWork &work) {
  __shared__ std::uint32_t ticket;
  const std::uint32_t lists = work.image().s.lists;
  __threadfence();
  __syncthreads();
  if (lists == 1) return true;
  std::uint32_t *tickets = in_image<std::uint32_t>(work.image(), work.image().room.tickets) + work.head.kv_head;
  if (threadIdx.x == 0) {
    ticket = atomicAdd(tickets, 1u);
    if (ticket == lists - 1) *tickets = 0;
  }
  __syncthreads();
  __threadfence();
  return ticket == lists - 1;
}

__device__ inline void leave_marks(const ListWork &work, const Step &step, bool everything, bool dense) {
  const bool tail = work.args.leaves_tail != 0 && !step.everything;
  *work.head.marks() = HeadMarks{work.head.layer, step.tokens, tail ? work.head.layer : 0, tail ? step.tokens : 0};
  const std::uint32_t kind = everything ? static_cast<std::uint32_t>(KVSIFT_TAIL_NONE) : work.image().s.c.tail;
  *work.head.step() = StepRecord{step.tokens, everything, !dense && step.calibration, kind};
  progress_of(work.image())->selected_for = step.tokens;
}

template <bool kCareful>
__device__ inline void write_list(const ChooseArgs &args) {
  const DeviceHead head = head_of(args.call);
  const Settings &s = args.call.image.s;
  const ListWork work{args, head, blockIdx.x, head.kv_head * s.lists + blockIdx.x};
  const std::uint32_t tokens = tokens_of(args.call);
  const bool dense = args.call.layer < s.c.dense_layers;
  const Step step = step_of(args.call, tokens, args.learns != 0);
  const bool everything = step.everything || (step.calibration && s.c.calibration_dense != 0);
  if (tokens > s.c.max_tokens) {
    if (threadIdx.x == 0) report(args.call, kFaultCapacity, head.kv_head);
    return;
  }
  if (threadIdx.x == 0) {
    *list_of(args.call.image, work.index).block_count = 0;
    if (!dense) *work.missed_count(work.index) = 0;
    if (work.list == 0) leave_marks(work, step, everything, dense);
  }
  if (!step.everything) choose<kCareful>(work, step);
  if (everything) write_everything(list_of(args.call.image, work.index), tokens);
  if (!dense && is_last(work)) count_step(work, step, everything);
}

}  // namespace
}  // namespace kvsift

using namespace kvsift;

KVSIFT_KERNEL(choose, ChooseArgs, kChooseThreads) { write_list<false>(args); }

// For configurations with target_mass or verify_blocks.
KVSIFT_KERNEL(choose_carefully, ChooseArgs, kChooseThreads) { write_list<true>(args); }
