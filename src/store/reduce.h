// A selection without the blocks that a late cap left out.
#pragma once

#include "store/geometry.h"

namespace kvsift {

// Where a store keeps such a selection's lists: [query heads][most], and how many there are in each.
struct ReducedLists {
  kvsift_range *ranges;
  std::uint32_t *range_counts, *blocks, *block_counts;
  std::uint32_t most;
};

// Takes the blocks that are negative in `table` ([KV heads][blocks]) out of the selection, whose lists become those of `to`.
// *dropped counts them, once for each list. CAPACITY, and the selection as it was: a list has more than `most` entries.
kvsift_status reduce(const Geometry &g, const std::int32_t *table, const ReducedLists &to, kvsift_selection *selection,
                     std::uint64_t *dropped, kvsift_error *error);

}  // namespace kvsift
