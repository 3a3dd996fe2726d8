// What was chosen, cut to the blocks that a cache has.
#pragma once

#include "cuda/policy/image.h"

namespace kvsift {

constexpr std::uint32_t kPresentThreads = 256;

// One block a list: blockIdx.x counts the lists of a KV head.
struct PresentArgs {
  Call call;
  const std::int32_t *table;   // of the cache
  std::uint32_t table_stride;  // entries from one KV head's table to the next
  std::uint32_t page_shift;    // log2 of the tokens a page
};

}  // namespace kvsift
