// Attention over a selection, and over a prompt.
#include "attend/attend.h"

#include <cmath>
#include <cstring>

#include "attend/prefill.h"
#include "attend/together.h"
#include "check.h"
#include "methods/method.h"
#include "policy/observe.h"
#include "policy/pages.h"

using namespace kvsift;

namespace {

// What one attend call works on, after the checks.
struct Job {
  const Policy *p;
  std::uint32_t layer;
  const kvsift_query *query;
  const kvsift_cache *cache;
  const kvsift_selection *selection;
  bool tail;  // this layer has one, and something was left out
};

kvsift_status check_list(const Policy *p, const kvsift_selection &selection, std::uint32_t list) {
  const std::uint32_t count = selection.range_counts[list];
  if (count == 0 || count > selection.range_stride) {
    return fail_in(p, KVSIFT_INVALID_ARGUMENT, "selection->range_counts[", list, "] is ", count, ", not in 1 .. ",
                   selection.range_stride);
  }
  const kvsift_range *ranges = selection.ranges + std::uint64_t{list} * selection.range_stride;
  std::uint32_t reached = 0;
  for (std::uint32_t i = 0; i < count; ++i) {
    if (ranges[i].begin < reached || ranges[i].end <= ranges[i].begin || ranges[i].end > selection.tokens) {
      return fail_in(p, KVSIFT_INVALID_ARGUMENT, "selection->ranges of list ", list, ": entry ", i, " is [",
                     ranges[i].begin, ", ", ranges[i].end, "), not ascending within ", selection.tokens, " tokens");
    }
    reached = ranges[i].end;
  }
  return KVSIFT_OK;
}

kvsift_status check_selection(const Job &job, HeadSpan span) {
  const Policy *p = job.p;
  const kvsift_selection *selection = job.selection;
  if (selection == nullptr) return fail_in(p, KVSIFT_INVALID_ARGUMENT, "selection is null");
  if (selection->struct_size < sizeof *selection) {
    return fail_in(p, KVSIFT_INVALID_STRUCT_SIZE, "selection->struct_size is ", selection->struct_size);
  }
  if (selection->tokens != job.query->tokens) {
    return fail_in(p, KVSIFT_INVALID_ARGUMENT, "selection->tokens is ", selection->tokens, ", query->tokens is ",
                   job.query->tokens);
  }
  if (selection->lists != p->s.lists * p->s.c.kv_heads || selection->ranges == nullptr ||
      selection->range_counts == nullptr) {
    return fail_in(p, KVSIFT_INVALID_ARGUMENT, "selection->lists is ", selection->lists, ", the policy makes ",
                   p->s.lists * p->s.c.kv_heads, "; ranges and range_counts must be set");
  }
  for (std::uint32_t head = span.begin; head < span.end; ++head) {
    for (std::uint32_t i = 0; i < p->s.lists; ++i) {
      const std::uint32_t list = head * p->s.lists + i;
      if (kvsift_status s = check_list(p, *selection, list)) return s;
      if (job.cache == nullptr) continue;
      const kvsift_range *ranges = selection->ranges + std::uint64_t{list} * selection->range_stride;
      for (std::uint32_t r = 0; r < selection->range_counts[list]; ++r) {
        if (kvsift_status s = check_table(p, *job.cache, head, ranges[r].begin, ranges[r].end)) return s;
      }
    }
    if (job.cache != nullptr && selection->calibration != 0) {
      if (kvsift_status s = check_table(p, *job.cache, head, 0, selection->tokens)) return s;
    }
  }
  return KVSIFT_OK;
}

kvsift_status check_observation(const Policy *p, const kvsift_observation *o, std::uint32_t tokens) {
  if (o == nullptr) return KVSIFT_OK;
  if (o->struct_size < sizeof *o) {
    return fail_in(p, KVSIFT_INVALID_STRUCT_SIZE, "observation->struct_size is ", o->struct_size);
  }
  const std::uint32_t blocks = blocks_of(tokens, p->s.c.block_tokens);
  return check_block_buffers(p, *o, blocks);
}

Lists lists_of(const Job &job, std::uint32_t kv_head) {
  const kvsift_selection &s = *job.selection;
  const std::uint64_t first = std::uint64_t{kv_head} * job.p->s.lists;
  // Where everything is attended to, the heads' lists are one: the cache is read once for all of them.
  const bool apart = job.p->s.lists > 1 && s.everything == 0;
  return Lists{s.ranges + first * s.range_stride, s.range_counts + first, s.range_stride, apart};
}

Head head_query(const Job &job, std::uint32_t kv_head, const float *queries) {
  const Settings &s = job.p->s;
  static const kvsift_view kNone{};
  const bool has = job.cache != nullptr;
  return Head{kernels(job.p->level), queries, s.group, s.c.head_dim, s.scale,
              has ? head_rows(*job.cache, job.cache->keys, kv_head) : HeadRows{&kNone, nullptr, 0, 0},
              has ? head_rows(*job.cache, job.cache->values, kv_head) : HeadRows{&kNone, nullptr, 0, 0}};
}

// The tail logits that the selection left in scratch, if they are of this layer, length and query.
const float *left_logits(const Job &job, std::uint32_t kv_head, const float *queries) {
  const HeadState head = head_of(const_cast<Policy *>(job.p), job.layer, kv_head);
  const HeadMarks &marks = head.marks();
  if (marks.tail_layer != job.layer || marks.tail_tokens != job.query->tokens) return nullptr;
  const std::size_t bytes = std::size_t{job.p->s.group} * job.p->s.dim16 * sizeof(float);
  return std::memcmp(queries, head.scratch().queries, bytes) == 0 ? head.scratch().spare : nullptr;
}

Tail tail_of(const Job &job, std::uint32_t kv_head, const float *queries, const Moments *moments) {
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

// The results of one KV head, at its place in the caller's buffers.
Attended result_of(const Job &job, std::uint32_t kv_head, float *out, kvsift_observation *o) {
  const Settings &s = job.p->s;
  const std::uint64_t first = std::uint64_t{kv_head} * s.group;
  Attended result{};
  if (out != nullptr) result.out = out + first * s.c.head_dim;
  if (o == nullptr) return result;
  result.log_sum_exp = o->log_sum_exp + first;
  if (o->block_max != nullptr) result.block_max = o->block_max + first * o->block_stride;
  if (o->block_mass != nullptr) result.block_mass = o->block_mass + first * o->block_stride;
  result.block_stride = o->block_stride;
  result.block_tokens = s.c.block_tokens;
  result.blocks = blocks_of(job.query->tokens, s.c.block_tokens);
  // The scores that the selection was made of are spent. Dense layers have no unit, but scratch.
  result.chunk_max = HeadState{const_cast<Policy *>(job.p), nullptr, job.layer, kv_head}.scratch().scores;
  return result;
}

Moments moments_for(const Job &job, std::uint32_t kv_head) {
  if (!job.tail || job.selection->tail != KVSIFT_TAIL_MOMENTS) return Moments{};
  return moments_of(head_of(const_cast<Policy *>(job.p), job.layer, kv_head), job.query->tokens);
}

kvsift_status check_log_sums(const Job &job, std::uint32_t kv_head, const float *log_sum_exp) {
  for (std::uint32_t g = 0; g < job.p->s.group; ++g) {
    if (std::isfinite(log_sum_exp[g])) continue;
    return fail_in(job.p, KVSIFT_NOT_FINITE, "cache: attention of query head ", kv_head * job.p->s.group + g,
                   " is not finite, its keys hold NaN or infinity");
  }
  return KVSIFT_OK;
}

// `next` is the KV head whose turn comes then, or this one.
kvsift_status attend_head(const Job &job, std::uint32_t kv_head, std::uint32_t next, float *out, kvsift_observation *o) {
  float queries[KVSIFT_MAX_GROUP * KVSIFT_MAX_HEAD_DIM];
  float lse[KVSIFT_MAX_GROUP];
  widen_queries(job.p, *job.query, kv_head, 0, queries);
  const Head head = head_query(job, kv_head, queries);
  const Moments moments = moments_for(job, kv_head);
  // A sparse calibration: the output is the selection's, the observation the full row's.
  const bool apart = o != nullptr && job.selection->calibration != 0 && job.selection->everything == 0;
  Attended result = result_of(job, kv_head, out, apart ? nullptr : o);
  if (result.log_sum_exp == nullptr) result.log_sum_exp = lse;
  const List next_list = next > kv_head ? lists_of(job, next).list(0) : List{nullptr, 0};
  const Next coming{head_rows(*job.cache, job.cache->keys, next), next_list};
  attend(head, lists_of(job, kv_head), tail_of(job, kv_head, queries, &moments), result, coming);
  if (apart) attend_row(head, job.query->tokens, result_of(job, kv_head, nullptr, o));
  return check_log_sums(job, kv_head, result.log_sum_exp);
}

// Whether the heads' tokens are all attended to, and lie so that it pays to take the heads together.
bool goes_together(const Job &job, HeadSpan span) {
  if (span.end - span.begin < 2 || !side_by_side(*job.cache)) return false;
  for (std::uint32_t head = span.begin; head < span.end; ++head) {
    const Lists lists = lists_of(job, head);
    if (lists.per_query_head || lists.counts[0] != 1 || lists.ranges[0].begin != 0) return false;
    if (lists.ranges[0].end != job.query->tokens) return false;
  }
  return true;
}

kvsift_status attend_heads_together(const Job &job, HeadSpan span, float *out, kvsift_observation *o) {
  const Settings &s = job.p->s;
  float queries[kTogetherFloats], lse[kTogetherQueries];
  Head heads[kTogetherQueries];
  Attended results[kTogetherQueries];
  const std::uint32_t most = heads_together(s.group, s.c.head_dim);
  for (std::uint32_t begin = span.begin, count; begin < span.end; begin += count) {
    count = span.end - begin < most ? span.end - begin : most;
    for (std::uint32_t i = 0; i < count; ++i) {
      float *own = queries + std::size_t{i} * s.group * s.dim16;
      widen_queries(job.p, *job.query, begin + i, 0, own);
      heads[i] = head_query(job, begin + i, own);
      results[i] = result_of(job, begin + i, out, o);
      if (results[i].log_sum_exp == nullptr) results[i].log_sum_exp = lse + i * s.group;
    }
    attend_together(heads, results, count, job.query->tokens);
    for (std::uint32_t i = 0; i < count; ++i) {
      if (kvsift_status status = check_log_sums(job, begin + i, results[i].log_sum_exp)) return status;
    }
  }
  return KVSIFT_OK;
}

kvsift_status check_job(Job *job, HeadSpan *span) {
  const Policy *p = job->p;
  if (job->query == nullptr) return fail_in(p, KVSIFT_INVALID_ARGUMENT, "query is null");
  if (job->query->tokens > p->s.c.max_tokens) {
    return fail_in(p, KVSIFT_CAPACITY, "query->tokens is ", job->query->tokens, ", max_tokens is ", p->s.c.max_tokens);
  }
  if (kvsift_status s = check_layer(p, job->layer)) return s;
  if (kvsift_status s = check_heads(p, job->query, span)) return s;
  if (kvsift_status s = check_query(p, job->query, *span)) return s;
  if (kvsift_status s = check_selection(*job, *span)) return s;
  job->tail = job->layer >= p->s.c.dense_layers && job->selection->everything == 0 &&
              job->selection->tail == p->s.c.tail && p->s.c.tail != KVSIFT_TAIL_NONE;
  if (!job->tail || p->s.c.tail != KVSIFT_TAIL_MOMENTS) return KVSIFT_OK;
  for (std::uint32_t head = span->begin; head < span->end; ++head) {
    const std::uint32_t seen = p->unit(job->layer - p->s.c.dense_layers, head)->keys_seen;
    if (seen >= job->query->tokens) continue;
    return fail_in(p, KVSIFT_OUT_OF_ORDER, "query->tokens is ", job->query->tokens, ", KV head ", head, " of layer ",
                   job->layer, " has keys of ", seen);
  }
  return KVSIFT_OK;
}

}  // namespace

extern "C" kvsift_status kvsift_attend(const kvsift_policy *policy, uint32_t layer, const kvsift_query *query,
                                       const kvsift_cache *cache, const kvsift_selection *selection, float *out,
                                       kvsift_observation *observation) {
  if (!is_policy(policy)) return KVSIFT_INVALID_ARGUMENT;
  Job job{policy_of(policy), layer, query, cache, selection, false};
  HeadSpan span;
  if (out == nullptr) return fail_in(job.p, KVSIFT_INVALID_ARGUMENT, "out is null");
  if (query == nullptr) return fail_in(job.p, KVSIFT_INVALID_ARGUMENT, "query is null");
  if (kvsift_status s = check_cache(job.p, cache, query->tokens)) return s;
  if (kvsift_status s = check_job(&job, &span)) return s;
  if (kvsift_status s = check_observation(job.p, observation, query->tokens)) return s;
  const std::uint64_t head_bytes = std::uint64_t{job.p->s.group} * job.p->s.c.head_dim * sizeof(float);
  const auto first = reinterpret_cast<std::uintptr_t>(out) + span.begin * head_bytes;
  if (overlap(reinterpret_cast<const void *>(first), (span.end - span.begin) * head_bytes, job.p, job.p->bytes)) {
    return fail_in(job.p, KVSIFT_INVALID_ARGUMENT, "out lies in the policy's arena");
  }
  // Each row is looked at once, when it is the newest.
  const std::uint32_t newest = query->tokens - 1;
  for (std::uint32_t head = span.begin; head < span.end; ++head) {
    if (kvsift_status s = check_table(job.p, *cache, head, newest, query->tokens)) return s;
    if (kvsift_status s = check_finite(job.p, *cache, head, newest, query->tokens)) return s;
  }
  if (goes_together(job, span)) {
    if (kvsift_status s = attend_heads_together(job, span, out, observation)) return s;
  } else {
    for (std::uint32_t head = span.begin; head < span.end; ++head) {
      const std::uint32_t next = head + 1 < span.end ? head + 1 : head;
      if (kvsift_status s = attend_head(job, head, next, out, observation)) return s;
    }
  }
  if (observation != nullptr) {
    observation->tokens = query->tokens;
    observation->full = selection->everything != 0 || selection->calibration != 0;
    observation->rows = nullptr;
  }
  return KVSIFT_OK;
}

extern "C" kvsift_status kvsift_attend_tail(const kvsift_policy *policy, uint32_t layer, const kvsift_query *query,
                                            const kvsift_cache *cache, const kvsift_selection *selection, float *out,
                                            float *log_sum_exp) {
  if (!is_policy(policy)) return KVSIFT_INVALID_ARGUMENT;
  Job job{policy_of(policy), layer, query, cache, selection, false};
  HeadSpan span;
  if (out == nullptr) return fail_in(job.p, KVSIFT_INVALID_ARGUMENT, "out is null");
  if (log_sum_exp == nullptr) return fail_in(job.p, KVSIFT_INVALID_ARGUMENT, "log_sum_exp is null");
  if (kvsift_status s = check_job(&job, &span)) return s;
  // Only a coreset reads the cache.
  if (job.tail && selection->tail == KVSIFT_TAIL_BALANCE) {
    if (kvsift_status s = check_cache(job.p, cache, query->tokens)) return s;
  } else {
    job.cache = nullptr;
  }
  const Settings &s = job.p->s;
  float queries[KVSIFT_MAX_GROUP * KVSIFT_MAX_HEAD_DIM];
  for (std::uint32_t i = span.begin; i < span.end; ++i) {
    widen_queries(job.p, *query, i, 0, queries);
    const Moments moments = moments_for(job, i);
    Attended result = result_of(job, i, out, nullptr);
    result.log_sum_exp = log_sum_exp + std::uint64_t{i} * s.group;
    attend_tail(head_query(job, i, queries), lists_of(job, i), tail_of(job, i, queries, &moments), result);
  }
  return KVSIFT_OK;
}

extern "C" kvsift_status kvsift_merge_attention(uint32_t head_dim, float *a, float *la, const float *b, float lb) {
  if (a == nullptr || la == nullptr || b == nullptr || head_dim == 0 || head_dim > KVSIFT_MAX_HEAD_DIM) {
    return KVSIFT_INVALID_ARGUMENT;
  }
  if (std::isnan(*la) || std::isnan(lb)) return KVSIFT_NOT_FINITE;
  merge_attention(head_dim, a, la, b, lb);
  return KVSIFT_OK;
}
