#include "attend/attend.h"

#include "attend/observe.h"
#include "attend/running.h"
#include "attend/tail.h"
#include "kernels/one.h"

namespace kvsift {

namespace {

const Tail kNoTail = {};

struct List {
  const kvsift_range *ranges;
  std::uint32_t count;
};

// At most kHeads query heads that share a list.
void attend_list(const Head &head, const List &list, const Tail &tail, const Attended &result) {
  Chunk chunks[2];
  ChunkWork work;
  Running running;
  BlockObserver observer(head, result);
  const bool values = result.out != nullptr;
  running.start(head);
  KeptWalk walk(list.ranges, list.count);
  walk.next(&chunks[0]);
  for (std::uint32_t c = 0; chunks[c].size > 0; c ^= 1) {
    const Chunk &chunk = chunks[c];
    walk.next(&chunks[c ^ 1]);
    work.dot(head, chunk);
    observer.logits(chunk, &work);
    work.soften(head, chunk.size);
    observer.weights(chunk, &work);
    if (values) work.weigh(head, chunk, chunks[c ^ 1]);
    running.merge(head, work, values);
  }
  add_tail(head, list.ranges, list.count, tail, &work, &running);
  float log_sums[kHeads];
  running.finish(head, result.out, log_sums);
  observer.finish(log_sums);
  if (result.log_sum_exp == nullptr) return;
  for (std::uint32_t g = 0; g < head.group; ++g) result.log_sum_exp[g] = log_sums[g];
}

void tail_of_list(const Head &head, const List &list, const Tail &tail, const Attended &result) {
  ChunkWork work;
  Running running;
  running.start(head);
  add_tail(head, list.ranges, list.count, tail, &work, &running);
  running.finish(head, result.out, result.log_sum_exp);
}

template <class T>
T *member(T *array, std::uint64_t at) {
  return array == nullptr ? nullptr : array + at;
}

using Pass = void (*)(const Head &, const List &, const Tail &, const Attended &);

// Cuts the group into parts that share a list and fit.
void by_parts(const Head &head, const Lists &lists, const Tail &tail, const Attended &result,
              Pass pass) {
  const std::uint32_t most = lists.per_query_head ? 1 : kHeads;
  for (std::uint32_t g = 0; g < head.group; g += most) {
    Head part = head;
    part.queries += static_cast<std::size_t>(g) * padded_dim(head.dim);
    part.group = head.group - g < most ? head.group - g : most;
    const std::uint32_t l = lists.per_query_head ? g : 0;
    const List list{lists.ranges + static_cast<std::size_t>(l) * lists.stride, lists.counts[l]};
    Tail part_tail = tail;
    part_tail.page_logits = member(tail.page_logits, g * tail.page_stride);
    Attended part_result = result;
    part_result.out = member(result.out, static_cast<std::uint64_t>(g) * head.dim);
    part_result.log_sum_exp = member(result.log_sum_exp, g);
    part_result.block_max = member(result.block_max, g * result.block_stride);
    part_result.block_mass = member(result.block_mass, g * result.block_stride);
    pass(part, list, part_tail, part_result);
  }
}

}  // namespace

void attend(const Head &head, const Lists &lists, const Tail &tail, const Attended &result) {
  by_parts(head, lists, tail, result, attend_list);
}

void attend_tail(const Head &head, const Lists &lists, const Tail &tail, const Attended &result) {
  by_parts(head, lists, tail, result, tail_of_list);
}

void attend_row(const Head &head, std::uint32_t tokens, const Attended &result) {
  const kvsift_range everything{0, tokens};
  const std::uint32_t count = tokens > 0 ? 1 : 0;
  Attended row = result;
  row.out = nullptr;
  by_parts(head, Lists{&everything, &count, 1, false}, kNoTail, row, attend_list);
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
