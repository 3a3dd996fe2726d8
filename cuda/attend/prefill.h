// The pooled attention rows of a prompt's last queries, for methods that learn from them: what attend_row of
// attend/attend.h gives for each, reduced to the lists of the KV head.
//
// Chunks of kChunk tokens are gone through by themselves, then merged in order. An item is one query: member i % group of
// the group in row i / group of the pass.
#pragma once

#include "core/arena.h"
#include "cuda/core/launcher.h"
#include "cuda/methods/pooled.h"

namespace kvsift {

constexpr std::uint32_t kPrefillThreads = 256;
constexpr std::uint32_t kPrefillItems = kPrefillThreads / 32;  // whose chunks a block works on, a warp each

// The room of one pass, [KV heads][items] before the dimensions named.
struct PrefillRoom {
  float *chunk_max, *chunk_sum;  // [chunks]
  float *peak, *mass;            // [chunks][parts]: of a block's part in a chunk the largest logit, and the log of its sum
  float *log_sums;
  float *pooled_peak, *pooled_mass;  // [rows][KV heads][lists][block_stride]
  std::uint64_t chunks, parts, block_stride;
};

struct PrefillArgs {
  Call call;                  // its tokens: those that the pass's last row sees
  kvsift_view queries, keys;
  const std::int32_t *table;  // null: contiguous
  std::uint32_t table_stride, page_shift;
  std::uint32_t first_row;    // of the view
  std::uint32_t rows, heads;
  std::uint32_t with_mass;
  std::uint32_t aligned;      // rows of keys can be read 8 elements at a time
  PrefillRoom room;
};

// What one call of prefill_rows works on.
struct PrefillJob {
  kvsift_query query;
  kvsift_cache cache;
  std::uint32_t rows;         // the view's last ones that are wanted
  bool with_mass;
};

using ObserveRows = kvsift_status (*)(const Launcher &, const Call &, std::uint32_t heads, const DeviceRows &);

// Bytes of the room, from room.method on behind what the method has, and rows that a pass goes through.
struct PrefillPlaces {
  std::uint32_t rows;
  Offset<float> chunk_max, chunk_sum, peak, mass, log_sums, pooled_peak, pooled_mass;
  std::uint64_t bytes;
};
PrefillPlaces prefill_places(const Settings &settings);

// Gives the rows to `observe`, oldest first, as many at a time as there is room for at `room`.
kvsift_status prefill_rows(const Launcher &to, const Call &call, std::uint32_t heads, const PrefillJob &job, char *room,
                           ObserveRows observe);

}  // namespace kvsift
