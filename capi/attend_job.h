// What an attend call works on, and what is checked of it.
#pragma once

#include "attend/attend.h"
#include "check.h"

namespace kvsift {

// Where the pooled rows of a call's attention go.
enum class RowsTo { kNowhere, kCaller, kScratch };

struct AttendJob {
  Policy *p;  // kvsift_attend changes nothing of it but scratch
  std::uint32_t layer;
  const kvsift_query *query;
  const kvsift_cache *cache;
  const kvsift_selection *selection;
  RowsTo rows_to;
  kvsift_observation *observation;  // the caller's rows
  bool tail;  // this layer has one, and something was left out

  // Besides the selection's tokens, for the rows of a sparse calibration.
  bool reads_all_keys() const {
    return rows_to != RowsTo::kNowhere && selection->calibration != 0 && selection->everything == 0;
  }
};

Lists lists_of(const AttendJob &job, std::uint32_t kv_head);
// Without a cache, rows that nothing reads.
Head head_query(const AttendJob &job, std::uint32_t kv_head, const float *queries);
// `moments` are those of moments_for.
Tail tail_of(const AttendJob &job, std::uint32_t kv_head, const float *queries, const Moments *moments);
Moments moments_for(const AttendJob &job, std::uint32_t kv_head);

// Query, heads and selection; sets job->tail.
kvsift_status check_job(AttendJob *job, HeadSpan *span);
// Besides: the cache, its newest rows, and where the output goes. `job` has said where rows go.
kvsift_status check_attend(AttendJob *job, const float *out, HeadSpan *span);

}  // namespace kvsift
