#include "cuda/policy/choose.h"

#include "cuda/policy/group.cuh"
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

// Where the rows that a list ranks are read: of shared memory as much as they fit in.
struct Ranked {
  float *kept;    // where the scores are kept: the method's state or scratch
  float *scores;  // what is ranked
};

__device__ inline void copy_row(const float *from, std::uint32_t count, float *to) {
  each_place(count, [&](std::uint32_t i) { to[i] = from[i]; });
}

// Scores of the group's query heads as one row, which scratch has too.
__device__ inline Ranked reduced(const ListWork &work, std::uint32_t blocks, float *shared) {
  const Settings &s = work.image().s;
  const Scratch scratch = work.head.scratch();
  const GroupRows from{scratch.scores, static_cast<std::uint32_t>(scratch.stride), s.group, blocks};
  return Ranked{scratch.scores, reduce_group(s, work.args.kind, from, GroupRows{shared, work.args.shared_stride, s.group, blocks})};
}

// The scores that this list ranks.
__device__ inline Ranked ranked_scores(const ListWork &work, std::uint32_t blocks, float *shared) {
  const Settings &s = work.image().s;
  const Scratch scratch = work.head.scratch();
  const bool many = work.args.by_query != 0 && s.c.grouping != KVSIFT_GROUP_QUERY_HEAD;
  if (many && s.group * work.args.shared_stride <= work.args.shared_floats) return reduced(work, blocks, shared);
  float *kept = scratch.scores + work.list * scratch.stride;
  if (work.args.state_rows > 0) {
    kept = work.head.state<float>(work.args.state_rows - 1) + std::uint64_t{work.list} * s.max_blocks;
  }
  if (work.args.shared_stride > work.args.shared_floats) return Ranked{kept, kept};
  copy_row(kept, blocks, shared);
  __syncthreads();
  return Ranked{kept, shared};
}

__device__ inline void evict_unlisted(float *scores, std::uint32_t blocks, const Parts &parts) {
  for (std::uint32_t i = threadIdx.x; i < blocks; i += blockDim.x) {
    if (i < parts.sink_blocks() || i >= parts.local_block()) continue;
    const std::uint32_t at = first_from(parts.chosen, parts.count, i);
    if (at == parts.count || parts.chosen[at] != i) scores[i] = -infinity();
  }
}

// Blocks that compete and are taken where there is a target or a late check, ascending; returns how many.
__device__ inline std::uint32_t take_carefully(const ListWork &work, const Ranking &r, const float *scores, std::uint32_t scored,
                                               std::uint32_t *chosen) {
  const std::uint32_t candidates = r.crop.end - r.crop.begin;
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
  const GroupRows late{scratch.spare, static_cast<std::uint32_t>(scratch.stride), s.group, blocks_of(r.tokens, s.c.block_tokens)};
  if (!by_head) reduce_group(s, ScoreKind::kLog, late, late);
  const std::uint64_t row = work.list * scratch.stride;
  std::uint32_t *missed = in_image<std::uint32_t>(image, image.missed) + std::uint64_t{work.index} * s.c.verify_blocks;
  // Scores in scratch are spent.
  auto *room = reinterpret_cast<std::uint32_t *>(scratch.scores + row);
  const std::uint32_t added = add_late(scratch.spare + row, r.crop, k, s.c.verify_blocks, room, chosen, count, missed);
  if (threadIdx.x == 0) *work.missed_count(work.index) = added;
  return count + added;
}

// The list of a step that leaves something out. What it chose is kept in shared memory too where it is not too much.
template <bool kCareful>
__device__ inline void choose(const ListWork &work, const Step &step, float *shared) {
  __shared__ std::uint32_t near[kNearBlocks];
  const Settings &s = work.image().s;
  const std::uint32_t blocks = blocks_of(step.tokens, s.c.block_tokens);
  const std::uint32_t leading = work.args.leading == nullptr ? blocks : work.args.leading[blockIdx.y];
  const Ranking r = rank_for(s, step.tokens, leading);
  std::uint32_t *chosen = work.chosen(work.index), *copy = !kCareful && r.k <= kNearBlocks ? near : nullptr, count = 0;
  Ranked ranked{nullptr, nullptr};
  if (work.args.scored != 0) {
    ranked = ranked_scores(work, leading, shared);
    if (r.crop.end > r.crop.begin) {
      if constexpr (kCareful) {
        count = take_carefully(work, r, ranked.scores, leading, chosen);
      } else {
        count = top_blocks(ranked.scores, r.crop.begin, r.crop.end - r.crop.begin, r.k, chosen, copy);
      }
    }
  }
  const DeviceList list = list_of(work.image(), work.index);
  const Parts parts = parts_of(s, r, copy == nullptr ? chosen : copy, count);
  const std::uint32_t kept = write_ranges(list, parts);
  write_blocks(list, parts);
  if (work.args.evicts != 0) evict_unlisted(ranked.kept, blocks, parts);
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

// Tokens in at least one list of the KV head, all of which are written. One thread's answer counts.
__device__ inline std::uint32_t tokens_of_all(const ListWork &work, const Step &step) {
  const Settings &s = work.image().s;
  const std::uint32_t first = work.index - work.list;
  if (s.lists == 1) return threadIdx.x == 0 ? *work.kept_count(first) : 0;  // which that thread wrote
  const Ranking r = rank_for(s, step.tokens, blocks_of(step.tokens, s.c.block_tokens));
  std::uint32_t tokens = 0;
  for (std::uint32_t list = 0; list < s.lists; ++list) {
    const Parts parts = parts_of(s, r, work.chosen(first + list), *work.chosen_count(first + list));
    tokens += tokens_of_own(work, list, parts);
  }
  tokens = block_sum(tokens);
  const Parts fixed = parts_of(s, r, nullptr, 0);
  const std::uint32_t local = fixed.local_begin > fixed.sink_end ? fixed.local_begin : fixed.sink_end;
  return tokens + fixed.sink_end + (step.tokens - local);
}

// Nobody waits for what the counter was.
__device__ inline void add_to(std::uint64_t *counter, std::uint64_t x) {
  atomicAdd(reinterpret_cast<unsigned long long *>(counter), static_cast<unsigned long long>(x));
}

__device__ inline void count_step(const ListWork &work, const Step &step, bool everything) {
  const Settings &s = work.image().s;
  Unit *unit = work.head.unit();
  const std::uint32_t tokens = everything ? step.tokens : tokens_of_all(work, step);
  if (threadIdx.x != 0) return;
  add_to(&unit->counters.tokens_read, tokens);
  if (!step.everything) {
    const std::uint32_t first = work.index - work.list;
    std::uint64_t kept = 0, missed = 0;
    for (std::uint32_t list = 0; list < s.lists; ++list) {
      kept += *work.kept_count(first + list);
      if (work.args.verifies != 0) missed += *work.missed_count(first + list);
    }
    if (missed > 0) add_to(&unit->counters.missed_blocks, missed);
    add_to(&unit->counters.selections, s.lists);
    add_to(&unit->counters.tokens_kept, kept);
    add_to(&unit->counters.tokens_total, std::uint64_t{s.lists} * step.tokens);
    add_to(&unit->counters.state_bytes_touched,
           std::uint64_t{blocks_of(step.tokens, s.c.block_tokens)} * work.args.bytes_of_block);
  }
  unit->selected_for = step.tokens;
}

// Whether this block is the last of its KV head's.
__device__ inline bool is_last(const ListWork &work) {
  __shared__ std::uint32_t ticket;
  const std::uint32_t lists = work.image().s.lists;
  if (lists == 1) return true;
  __threadfence();
  __syncthreads();
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
  if (blockIdx.y == 0) progress_of(work.image())->selected_for = step.tokens;
}

template <bool kCareful>
__device__ inline void write_list(const ChooseArgs &args, float *shared) {
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
  if (!step.everything) choose<kCareful>(work, step, shared);
  if (everything) write_everything(list_of(args.call.image, work.index), tokens);
  if (!dense && is_last(work)) count_step(work, step, everything);
}

}  // namespace
}  // namespace kvsift

using namespace kvsift;

KVSIFT_KERNEL(choose, ChooseArgs, kChooseThreads) {
  KVSIFT_DYNAMIC_SHARED(dynamic);
  write_list<false>(args, reinterpret_cast<float *>(dynamic));
}

// For configurations with target_mass or verify_blocks.
KVSIFT_KERNEL(choose_carefully, ChooseArgs, kChooseThreads) {
  KVSIFT_DYNAMIC_SHARED(dynamic);
  write_list<true>(args, reinterpret_cast<float *>(dynamic));
}
