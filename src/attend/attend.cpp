#include "attend/attend.h"

#include <cstring>

#include "attend/observe.h"
#include "attend/running.h"
#include "attend/shares.h"
#include "attend/tail.h"
#include "kernels/one.h"

namespace kvsift {

namespace {

const Tail kNoTail = {};

// Query heads [g, g + count) of what belongs to a group; null arrays stay null.
template <class T>
T *member(T *array, std::uint64_t at) {
  return array == nullptr ? nullptr : array + at;
}

Head members(const Head &head, std::uint32_t g, std::uint32_t count) {
  Head part = head;
  part.queries += static_cast<std::size_t>(g) * padded_dim(head.dim);
  part.group = count;
  return part;
}

Attended members(const Head &head, const Attended &result, std::uint32_t g) {
  Attended part = result;
  part.out = member(result.out, static_cast<std::uint64_t>(g) * head.dim);
  part.log_sum_exp = member(result.log_sum_exp, g);
  part.block_max = member(result.block_max, g * result.block_stride);
  part.block_mass = member(result.block_mass, g * result.block_stride);
  part.chunk_max = member(result.chunk_max, std::uint64_t{g} * result.chunks());
  return part;
}

// The kept tokens of one list, for the query heads from `first` on of `running`. Keys are asked for a
// chunk's worth of rows ahead, `after`'s where this list's end: a list's last chunk may be short.
void add_kept(const Head &head, const List &list, const Attended &result, const Next &after,
              std::uint32_t first, ChunkWork *work, Running *running) {
  Chunk chunks[2], coming;
  begin_observation(head, result, list);
  const bool values = result.out != nullptr;
  KeptWalk walk(list.ranges, list.count);
  work->begin();
  walk.next(&chunks[0]);
  std::uint32_t asked = 0;  // of `coming`
  if (first == 0) ask_for_chunk(head.keys, head.dim, chunks[0]);
  for (std::uint32_t c = 0; chunks[c % 2].size > 0; ++c) {
    const Chunk &chunk = chunks[c % 2], &next = chunks[(c + 1) % 2];
    const bool last = !walk.next(&chunks[(c + 1) % 2]);
    if (next.size < chunk.size) KeptWalk(after.list.ranges, after.list.count).next(&coming);
    const Coming next_keys = last ? Coming{after.keys, coming, asked}
                                  : Coming{head.keys, next, 0, &after.keys, &coming};
    asked = chunk.size - next.size;
    float *room = room_for_weights(head, result, chunk, c);
    work->logits = room != nullptr ? room : work->own;
    work->dot(head, chunk, values ? Coming{head.values, chunk} : next_keys);
    observe_logits(head, result, chunk, work->logits);
    work->soften(head, chunk.size);
    observe_weights(head, result, chunk, c, work->logits, work->max);
    if (values) work->weigh(head, chunk, next_keys);
    running->merge(head, *work, values, first);
  }
  work->logits = work->own;
}

// At most kHeads query heads.
void attend_part(const Head &head, const Lists &lists, const Tail &tail, const Attended &result,
                 const Next &next) {
  ChunkWork work;
  Running running;
  running.start(head);
  const std::uint32_t sharing = lists.per_query_head ? 1 : head.group;
  for (std::uint32_t g = 0; g < head.group; g += sharing) {
    const bool last = g + sharing >= head.group;
    const Next after = last ? next : Next{head.keys, lists.list(g + sharing)};
    add_kept(members(head, g, sharing), lists.list(g), members(head, result, g), after, g, &work,
             &running);
  }
  add_tail(head, lists, tail, &work, &running);
  float log_sums[kHeads];
  running.finish(head, result.out, log_sums);
  for (std::uint32_t g = 0; g < head.group; g += sharing)
    finish_masses(members(head, g, sharing), members(head, result, g), lists.list(g), log_sums + g);
  if (result.log_sum_exp == nullptr) return;
  for (std::uint32_t g = 0; g < head.group; ++g) result.log_sum_exp[g] = log_sums[g];
}

void tail_of_part(const Head &head, const Lists &lists, const Tail &tail, const Attended &result,
                  const Next &) {
  ChunkWork work;
  Running running;
  running.start(head);
  add_tail(head, lists, tail, &work, &running);
  running.finish(head, result.out, result.log_sum_exp);
}

// Lists that are one: the cache is read once for all query heads.
bool all_alike(const Lists &lists, std::uint32_t group) {
  for (std::uint32_t g = 1; g < group; ++g) {
    const std::uint64_t bytes = std::uint64_t{lists.counts[0]} * sizeof *lists.ranges;
    if (lists.counts[g] != lists.counts[0]) return false;
    if (std::memcmp(lists.list(g).ranges, lists.ranges, bytes) != 0) return false;
  }
  return true;
}

using Pass = void (*)(const Head &, const Lists &, const Tail &, const Attended &,
                      const Next &);

// Cuts the group into parts that fit.
void by_parts(const Head &head, const Lists &lists, const Tail &tail, const Attended &result,
              const Next &next, Pass pass) {
  Lists part_lists = lists;
  part_lists.per_query_head = lists.per_query_head && !all_alike(lists, head.group);
  for (std::uint32_t g = 0; g < head.group; g += kHeads) {
    if (part_lists.per_query_head) {
      part_lists.ranges = lists.list(g).ranges;
      part_lists.counts = lists.counts + g;
    }
    Tail part_tail = tail;
    part_tail.page_logits = member(tail.page_logits, g * tail.page_stride);
    const std::uint32_t count = head.group - g < kHeads ? head.group - g : kHeads;
    pass(members(head, g, count), part_lists, part_tail, members(head, result, g), next);
  }
}

}  // namespace

void attend(const Head &head, const Lists &lists, const Tail &tail, const Attended &result,
            const Next &next) {
  by_parts(head, lists, tail, result, next, attend_part);
}

void attend_tail(const Head &head, const Lists &lists, const Tail &tail, const Attended &result) {
  by_parts(head, lists, tail, result, Next{head.keys, List{nullptr, 0}}, tail_of_part);
}

void attend_row(const Head &head, std::uint32_t tokens, const Attended &result) {
  const kvsift_range everything{0, tokens};
  const std::uint32_t count = tokens > 0 ? 1 : 0;
  Attended row = result;
  row.out = nullptr;
  by_parts(head, Lists{&everything, &count, 1, false}, kNoTail, row,
           Next{head.keys, List{nullptr, 0}}, attend_part);
}

void merge_attention(std::uint32_t dim, float *a, float *la, const float *b, float lb) {
  if (!(lb > -__builtin_inff())) return;
  const float larger = *la > lb ? *la : lb;
  const float ea = exp1(*la - larger), eb = exp1(lb - larger), sum = ea + eb;
  const float wa = ea / sum, wb = eb / sum;
  for (std::uint32_t c = 0; c < dim; ++c) a[c] = __builtin_fmaf(wa, a[c], wb * b[c]);
  *la = larger + log1(sum);
}

}  // namespace kvsift
