// Decode attention over a selection.
#pragma once

#include "cuda/policy/image.h"

namespace kvsift {

constexpr std::uint32_t kAttendThreads = 256;
constexpr std::uint32_t kMostNarrow = 4 * kAttendThreads * 2;  // dimensions times query heads, but for attend_any
constexpr std::uint32_t kStageRows = 32;  // value rows in shared memory at a time

// One layer's cache: device pointers.
struct CacheArgs {
  kvsift_view keys, values;
  const std::int32_t *table;    // null: contiguous
  std::uint32_t table_stride;   // entries from one KV head's table to the next
  std::uint32_t page_shift;     // log2 of the tokens a page
};

// For both kernels of a pass. A pass over everything for the observation alone (a calibration whose output stays sparse)
// is a second one, with row_only set.
struct AttendArgs {
  Call call;
  kvsift_view query;
  CacheArgs cache;
  float *out;            // [query heads][head_dim]
  float *log_sum_exp;    // [query heads]; may be null
  float *block_max;      // [query heads][block_stride]; may be null
  float *block_mass;     // likewise
  std::uint64_t block_stride;
  std::uint32_t row_only;
  std::uint32_t tail;    // KVSIFT_TAIL_*, of this layer
  std::uint32_t logits_of_selection;  // the tail's were left by the selection's scoring, else by a kernel before this one
  std::uint32_t tail_only;  // the selected tokens are another kernel's
};

}  // namespace kvsift
