// Exact causal attention of many query rows, in tiles: what prefill_attend of attend/prefill.h gives, to the bit.
//
// A block has one tile of items (an item is one query: member i % group of the group in row i / group) of one KV head and
// walks the keys, then the values, of one chunk of kChunk tokens after another, a stage at a time.
#pragma once

#include "cuda/core/launcher.h"
#include "cuda/policy/image.h"

namespace kvsift {

constexpr std::uint32_t kCausalThreads = 256, kCausalItems = 32;
constexpr std::uint32_t kCausalStage = 32;  // tokens in shared memory at a time, twice

struct CausalArgs {
  Call call;            // its tokens: those that the last row sees
  kvsift_view queries;  // token stride over the rows
  kvsift_view keys, values;
  const std::int32_t *table;                // null: contiguous
  std::uint32_t table_stride, page_shift;   // from one KV head's table to the next; log2 of the tokens a page
  std::uint32_t rows;
  float *out;           // [rows][query heads][head_dim]
};

kvsift_status causal_attend(const Launcher &to, const CausalArgs &args, std::uint32_t heads);

}  // namespace kvsift
