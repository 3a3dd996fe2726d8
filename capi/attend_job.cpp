// A call's arguments as the attention behind it takes them.
#include "attend_job.h"

#include <cstring>

#include "policy/pages.h"

namespace kvsift {

Lists lists_of(const AttendJob &job, std::uint32_t kv_head) {
  const kvsift_selection &s = *job.selection;
  const std::uint64_t first = std::uint64_t{kv_head} * job.p->s.lists;
  // Where everything is attended to, the heads' lists are one: the cache is read once for all of them.
  const bool apart = job.p->s.lists > 1 && s.everything == 0;
  return Lists{s.ranges + first * s.range_stride, s.range_counts + first, s.range_stride, apart};
}

Head head_query(const AttendJob &job, std::uint32_t kv_head, const float *queries) {
  const Settings &s = job.p->s;
  static const kvsift_view kNone{};
  const bool has = job.cache != nullptr;
  return Head{kernels(job.p->level), queries, s.group, s.c.head_dim, s.scale,
              has ? head_rows(*job.cache, job.cache->keys, kv_head) : HeadRows{&kNone, nullptr, 0, 0},
              has ? head_rows(*job.cache, job.cache->values, kv_head) : HeadRows{&kNone, nullptr, 0, 0}};
}

// The tail logits that the selection left in scratch, if they are of this layer, length and query.
static const float *left_logits(const AttendJob &job, std::uint32_t kv_head, const float *queries) {
  const HeadState head = head_of(job.p, job.layer, kv_head);
  const HeadMarks &marks = head.marks();
  if (marks.tail_layer != job.layer || marks.tail_tokens != job.query->tokens) return nullptr;
  const std::size_t bytes = std::size_t{job.p->s.group} * job.p->s.dim16 * sizeof(float);
  return std::memcmp(queries, head.scratch().queries, bytes) == 0 ? head.scratch().spare : nullptr;
}

Tail tail_of(const AttendJob &job, std::uint32_t kv_head, const float *queries, const Moments *moments) {
  Tail tail{};
  tail.kind = KVSIFT_TAIL_NONE;
  if (!job.tail) return tail;
  const kvsift_selection &s = *job.selection;
  tail.kind = s.tail;
  tail.moments = moments;
  if (s.tail == KVSIFT_TAIL_MOMENTS) tail.page_logits = left_logits(job, kv_head, queries);
  tail.page_stride = scratch_stride(job.p->s);
  if (s.tail == KVSIFT_TAIL_BALANCE && s.coreset != nullptr) {
    tail.coreset = s.coreset + std::uint64_t{kv_head} * s.coreset_stride;
    tail.weights = s.coreset_weights + std::uint64_t{kv_head} * s.coreset_stride;
    tail.coreset_count = s.coreset_counts[kv_head];
  }
  return tail;
}

Moments moments_for(const AttendJob &job, std::uint32_t kv_head) {
  if (!job.tail || job.selection->tail != KVSIFT_TAIL_MOMENTS) return Moments{};
  return moments_of(head_of(job.p, job.layer, kv_head), job.query->tokens);
}

}  // namespace kvsift
