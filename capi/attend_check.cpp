// What is checked before anything is attended to.
#include "attend_job.h"

namespace kvsift {
namespace {

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

kvsift_status check_selection(const AttendJob &job, HeadSpan span) {
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
    if (job.cache != nullptr && job.reads_all_keys()) {
      if (kvsift_status s = check_table(p, *job.cache, head, 0, selection->tokens)) return s;
    }
  }
  return KVSIFT_OK;
}

// The tokens of a head's coreset, whose rows are read from the cache.
kvsift_status check_coreset(const AttendJob &job, std::uint32_t head) {
  const Policy *p = job.p;
  const kvsift_selection &selection = *job.selection;
  if (selection.coreset == nullptr) return KVSIFT_OK;
  if (selection.coreset_weights == nullptr || selection.coreset_counts == nullptr) {
    return fail_in(p, KVSIFT_INVALID_ARGUMENT, "selection->coreset is set, coreset_weights or coreset_counts is null");
  }
  const std::uint32_t count = selection.coreset_counts[head];
  if (count > selection.coreset_stride) {
    return fail_in(p, KVSIFT_INVALID_ARGUMENT, "selection->coreset_counts[", head, "] is ", count, ", coreset_stride is ",
                   selection.coreset_stride);
  }
  const std::uint32_t *tokens = selection.coreset + std::uint64_t{head} * selection.coreset_stride;
  for (std::uint32_t i = 0; i < count; ++i) {
    if (tokens[i] >= selection.tokens) {
      return fail_in(p, KVSIFT_INVALID_ARGUMENT, "selection->coreset of KV head ", head, ": entry ", i, " is token ", tokens[i],
                     " of ", selection.tokens);
    }
    if (job.cache == nullptr) continue;
    if (kvsift_status s = check_table(p, *job.cache, head, tokens[i], tokens[i] + 1)) return s;
  }
  return KVSIFT_OK;
}

// Keys that the moments tail stands for must have been observed.
kvsift_status check_moments(const AttendJob &job, std::uint32_t head) {
  const std::uint32_t seen = job.p->unit(job.layer - job.p->s.c.dense_layers, head)->keys_seen;
  if (seen >= job.query->tokens) return KVSIFT_OK;
  return fail_in(job.p, KVSIFT_OUT_OF_ORDER, "query->tokens is ", job.query->tokens, ", KV head ", head, " of layer ",
                 job.layer, " has keys of ", seen);
}

kvsift_status check_tail(const AttendJob &job, HeadSpan span) {
  for (std::uint32_t head = span.begin; head < span.end; ++head) {
    const bool coreset = job.selection->tail == KVSIFT_TAIL_BALANCE;
    if (kvsift_status s = coreset ? check_coreset(job, head) : check_moments(job, head)) return s;
  }
  return KVSIFT_OK;
}

}  // namespace

kvsift_status check_job(AttendJob *job, HeadSpan *span) {
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
  return job->tail ? check_tail(*job, *span) : KVSIFT_OK;
}

kvsift_status check_attend(AttendJob *job, const float *out, HeadSpan *span) {
  const Policy *p = job->p;
  if (out == nullptr) return fail_in(p, KVSIFT_INVALID_ARGUMENT, "out is null");
  if (job->query == nullptr) return fail_in(p, KVSIFT_INVALID_ARGUMENT, "query is null");
  const std::uint32_t tokens = job->query->tokens;
  if (kvsift_status s = check_cache(p, job->cache, tokens)) return s;
  if (kvsift_status s = check_job(job, span)) return s;
  if (kvsift_status s = check_own_room(p, "out", out, p->s.c.head_dim, *span)) return s;
  // Each row is looked at once, when it is the newest.
  const std::uint32_t newest = tokens - 1;
  for (std::uint32_t head = span->begin; head < span->end; ++head) {
    if (kvsift_status s = check_table(p, *job->cache, head, newest, tokens)) return s;
    if (kvsift_status s = check_finite(p, *job->cache, head, newest, tokens)) return s;
  }
  return KVSIFT_OK;
}

}  // namespace kvsift
