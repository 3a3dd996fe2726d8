// What kernels of the store are told: which blocks go to which slots.
#pragma once

#include <cstdint>

#include "kvsift/kvsift.h"

namespace kvsift {

constexpr std::uint32_t kNoSlot = UINT32_MAX;
constexpr std::uint32_t kMovesMost = 300;  // a kernel's arguments may have 4 KiB
constexpr std::uint32_t kMoveThreads = 128;

// A record is a block of one KV head: head * blocks + block within its layer.
struct Move {
  std::uint32_t record;
  std::uint32_t slot;     // kNoSlot: the block is forgotten
  std::uint32_t evicted;  // the record that had the slot; kNoSlot: none
};

// What a kernel found wrong, the first of it; in pinned memory, where the next call sees it.
struct StoreFault {
  std::uint32_t what;  // StoreFaultKind; 0: nothing
  std::uint32_t layer, record;
  std::uint32_t corrupt;  // records so far whose checksums were wrong
};
enum StoreFaultKind : std::uint32_t { kStoreFaultNone, kStoreFaultNotFinite, kStoreFaultCorrupt };

// Copies records from pinned host memory to slots, and tells the layer's table.
struct StoreGatherArgs {
  char *slots;          // of the layer
  const char *records;  // likewise, as the device sees them
  std::int32_t *table;
  std::uint64_t slot_bytes;
  std::uint32_t words;  // of 16 bytes a slot; 0: only the table is told
  std::uint32_t quiet;  // 1: the table is told only of what had the slots
  std::uint32_t count;
  Move moves[kMovesMost];
};

// Writes new rows to the slots of their blocks. Tokens [begin, end) of the cache are rows `row` and on of the views.
struct StoreAppendArgs {
  char *slots;
  std::int32_t *table;
  StoreFault *fault;
  kvsift_view keys, values;
  std::uint64_t slot_bytes, row_bytes, keys_bytes;  // as stored
  std::uint64_t scales_at;
  kvsift_type storage;
  std::uint32_t dim, layer;
  std::uint32_t begin, end, row;
  std::uint32_t block_shift, blocks;
  std::uint32_t count;
  Move moves[kMovesMost];
};

// Keeps the checksums of blocks that are about to be written back, or checks those of blocks that have come.
struct StoreSumArgs {
  char *slots;
  std::uint64_t *sums;  // of the layer's records
  std::int32_t *table;
  StoreFault *fault;
  std::uint64_t slot_bytes;
  std::uint32_t layer;
  std::uint32_t checks;  // 1: against what is kept
  std::uint32_t count;
  Move moves[kMovesMost];
};

static_assert(sizeof(StoreGatherArgs) <= 4096 && sizeof(StoreAppendArgs) <= 4096 && sizeof(StoreSumArgs) <= 4096,
              "a kernel's arguments have 4 KiB");

}  // namespace kvsift
