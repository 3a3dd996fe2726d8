// Decode attention over a selection.
#pragma once

#include "cuda/policy/image.h"

namespace kvsift {

constexpr std::uint32_t kAttendThreads = 512, kMergeThreads = 256;
constexpr std::uint32_t kMostNarrow = 4 * kAttendThreads * 2;  // dimensions times query heads, but for attend_any
constexpr std::uint32_t kChunk = 256;  // tokens, or pages, whose softmax is one

constexpr std::uint32_t kMergeColumns = 32;  // that one block of the merge takes

constexpr std::uint32_t kRingRows = 16;  // that a warp asks for at a time

// Value rows in one of the two halves of the stage, which has 64 KiB at most.
constexpr std::uint32_t stage_rows(std::uint32_t row_bytes) { return row_bytes <= 256 ? 128 : row_bytes <= 512 ? 64 : 32; }

// Of a chunk that a block takes.
struct ChunkShared {
  std::uint32_t tokens[kChunk];
  const std::uint8_t *keys[kChunk], *values[kChunk];
  float key_scales[kChunk], value_scales[kChunk];
  std::uint32_t starts[kChunk], begins[kChunk];  // of a stretch of the list's ranges
  std::uint32_t before;                          // the kept token before the chunk's first
  float max[KVSIFT_MAX_GROUP], sum[KVSIFT_MAX_GROUP];
  float weight_units[KVSIFT_MAX_GROUP];          // of int8 pages
};

// Where things lie in dynamic shared memory, bytes. Query heads come in fours.
constexpr std::uint32_t heads_of_rows(std::uint32_t group) { return (group + 3) / 4 * 4; }

struct ChunkRoom {
  std::uint32_t logits, shared, keys, stage;  // behind the queries
  std::uint32_t key_pitch;                    // 0: keys do not come through shared memory
};
// Rows of keys are padded so that four (or eight) of them lie in different banks.
constexpr ChunkRoom chunk_room(const Settings &s, std::uint32_t element, bool near_keys) {
  const std::uint32_t logits = heads_of_rows(s.group) * s.dim16 * 4, shared = logits + heads_of_rows(s.group) * kChunk * 4;
  const std::uint32_t keys = shared + (static_cast<std::uint32_t>(sizeof(ChunkShared)) + 15) / 16 * 16;
  const std::uint32_t pitch = near_keys && s.c.head_dim * element <= 256 ? (s.c.head_dim + 16) * element : 0;
  return ChunkRoom{logits, shared, keys, keys + kChunk * pitch, pitch};
}

// Chunks that a warp takes alone, where there are more than kDenseRounds for each block.
constexpr std::uint32_t kDenseRounds = 3, kDenseDim = 128;

struct DenseRoom {
  std::uint32_t queries, warp;          // of the block, then of each warp:
  std::uint32_t logits, scales, pitch;  // of one of the two times kRingRows rows
};
// Rows are padded so that four (or eight) of them lie in different banks.
constexpr DenseRoom dense_room(const Settings &s, std::uint32_t tiles, std::uint32_t element) {
  const std::uint32_t logits = tiles * kChunk * 16, scales = 2 * kRingRows * 4, pitch = (s.c.head_dim + 16) * element;
  return DenseRoom{tiles * 4 * s.dim16 * 4, logits + scales + 2 * kRingRows * pitch, logits, scales, pitch};
}

// The same for products on tensor cores (tensor.cuh).
constexpr std::uint32_t kTensorSlots = 3, kTensorBlocks = 256;  // of rows in a warp's ring; blocks of a launch, at most

struct TensorRoom {
  std::uint32_t parts, shared, ring;  // behind the queries; `ring`: of the first warp
  std::uint32_t warp, pitch;          // bytes of a warp's ring, and of a row in it
};
// Rows are padded so that eight of them lie in different banks.
constexpr TensorRoom tensor_room(const Settings &s) {
  const std::uint32_t heads = heads_of_rows(s.group), queries = heads * s.dim16 * 4, parts = heads * s.dim16 * 4;
  const std::uint32_t shared = (static_cast<std::uint32_t>(sizeof(ChunkShared)) + 15) / 16 * 16, pitch = s.dim16 * 2 + 16;
  return TensorRoom{queries, queries + parts, queries + parts + shared, kTensorSlots * kRingRows * pitch, pitch};
}

// Blocks of a KV head, each of which leaves its sums in a slot.
constexpr std::uint32_t tensor_blocks(const Settings &s) { return (kTensorBlocks + s.c.kv_heads - 1) / s.c.kv_heads; }

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
  std::uint32_t present;    // 1: of what was chosen, what the cache has
  std::uint32_t tail_only;  // the selected tokens are another kernel's
  std::uint32_t near_keys;    // there is shared memory for a chunk's keys
  std::uint32_t dense_tiles;  // fours of query heads, where warps can take chunks alone; else 0
  std::uint32_t dense_warps;  // how many of a block's warps do, or work on tensor cores
};

}  // namespace kvsift
