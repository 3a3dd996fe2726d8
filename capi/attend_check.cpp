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
    if (job.cache != nullptr && selection->calibration != 0) {
      if (kvsift_status s = check_table(p, *job.cache, head, 0, selection->tokens)) return s;
    }
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
  if (!job->tail || p->s.c.tail != KVSIFT_TAIL_MOMENTS) return KVSIFT_OK;
  for (std::uint32_t head = span->begin; head < span->end; ++head) {
    const std::uint32_t seen = p->unit(job->layer - p->s.c.dense_layers, head)->keys_seen;
    if (seen >= job->query->tokens) continue;
    return fail_in(p, KVSIFT_OUT_OF_ORDER, "query->tokens is ", job->query->tokens, ", KV head ", head, " of layer ",
                   job->layer, " has keys of ", seen);
  }
  return KVSIFT_OK;
}

kvsift_status check_attend(AttendJob *job, const float *out, HeadSpan *span) {
  const Policy *p = job->p;
  if (out == nullptr) return fail_in(p, KVSIFT_INVALID_ARGUMENT, "out is null");
  if (job->query == nullptr) return fail_in(p, KVSIFT_INVALID_ARGUMENT, "query is null");
  const std::uint32_t tokens = job->query->tokens;
  if (kvsift_status s = check_cache(p, job->cache, tokens)) return s;
  if (kvsift_status s = check_job(job, span)) return s;
  const std::uint64_t head_bytes = std::uint64_t{p->s.group} * p->s.c.head_dim * sizeof(float);
  const auto first = reinterpret_cast<std::uintptr_t>(out) + span->begin * head_bytes;
  if (overlap(reinterpret_cast<const void *>(first), (span->end - span->begin) * head_bytes, p, p->bytes)) {
    return fail_in(p, KVSIFT_INVALID_ARGUMENT, "out lies in the policy's arena");
  }
  // Each row is looked at once, when it is the newest.
  const std::uint32_t newest = tokens - 1;
  for (std::uint32_t head = span->begin; head < span->end; ++head) {
    if (kvsift_status s = check_table(p, *job->cache, head, newest, tokens)) return s;
    if (kvsift_status s = check_finite(p, *job->cache, head, newest, tokens)) return s;
  }
  return KVSIFT_OK;
}

}  // namespace kvsift
