// Bringing blocks in: ahead of use, and once the query is there.
#pragma once

#include "store/store.h"
#include "store/workers.h"

namespace kvsift {

// Waits for a slot where writes or fetches under way may free one; else CAPACITY, or the error that keeps it busy.
kvsift_status obtain_slot(Store *store, std::uint32_t layer, std::uint32_t *local);

kvsift_ticket prefetch(Store *store, std::uint32_t layer, const kvsift_selection &selection);
kvsift_status wait_ticket(Store *store, kvsift_ticket ticket);
bool ticket_exists(const Store &store, kvsift_ticket ticket);
bool ticket_done(const Store &store, kvsift_ticket ticket);

// With `capped` the late caps hold, and *missing says whether blocks are left out; without, all blocks are there.
kvsift_status fetch_selection(Store *store, std::uint32_t layer, const kvsift_selection &selection, bool capped,
                              bool *missing);

void describe_cache(const Store &store, std::uint32_t layer, kvsift_cache *cache);

kvsift_status append(Store *store, std::uint32_t layer, std::uint32_t tokens, const kvsift_view &keys,
                     const kvsift_view &values);
kvsift_status truncate(Store *store, std::uint32_t tokens);
kvsift_status read_tokens(Store *store, std::uint32_t layer, std::uint32_t head, std::uint32_t first,
                          std::uint32_t tokens, void *keys, void *values, float *key_scales,
                          float *value_scales);

// Calls use(head, block, entry) for the blocks of each list, ascending; those past the end of the cache are left out.
// Stops where `use` returns false. Lists of the query heads of one KV head name blocks again.
template <class Use>
bool for_each_block(const Store &store, std::uint32_t layer, const kvsift_selection &selection, Use use) {
  const std::uint32_t group = selection.lists / store.g.kv_heads;
  const std::uint32_t end = store.layers[layer].tokens;
  for (std::uint32_t list = 0; list < selection.lists; ++list) {
    const kvsift_range *ranges = selection.ranges + std::uint64_t{list} * selection.range_stride;
    const std::uint32_t head = list / group;
    std::int32_t *table = store.table(layer) + std::uint64_t{head} * store.g.blocks;
    std::uint32_t next = 0;
    for (std::uint32_t r = 0; r < selection.range_counts[list]; ++r) {
      if (ranges[r].begin >= end) break;
      const std::uint32_t last = ((ranges[r].end < end ? ranges[r].end : end) - 1) >> store.g.block_shift;
      std::uint32_t block = ranges[r].begin >> store.g.block_shift;
      for (block = block < next ? next : block; block <= last; ++block) {
        if (!use(head, block, table + block)) return false;
      }
      next = last + 1;
    }
  }
  return true;
}

}  // namespace kvsift
