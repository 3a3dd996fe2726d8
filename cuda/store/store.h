// A store whose fast tier is device memory. The host alone decides which block lies in which slot; the device is told by
// the kernels that move blocks, in the order of the streams:
//
//     caller's stream:   append rows -> [used] ................ attend;  resolve: wait [fetched], late fetches
//     copy stream:       wait [used] -> write back -> [written];  prefetch: wait [used], fetches -> [fetched]
//
// What a late cap leaves out is fetched as by a prefetch, but the device's table is not told before a resolve has waited
// for it: until then the table names exactly what a step may read, whichever stream is ahead.
#pragma once

#include "core/arena.h"
#include "cuda/core/device.h"
#include "cuda/store/moves.h"
#include "kvsift/kvsift_cuda.h"
#include "store/geometry.h"
#include "store/reduce.h"

namespace kvsift {

enum CudaSlotState : std::uint32_t { kSlotFree, kSlotOpen, kSlotHeld };

// Entries of the host's tables: a slot of the layer, kNotHere, or a slot that is filled behind a late cap.
constexpr std::int32_t kNotHere = -1;
constexpr std::int32_t filled_behind(std::uint32_t slot) { return -2 - static_cast<std::int32_t>(slot); }
constexpr std::uint32_t slot_of(std::int32_t entry) {
  return static_cast<std::uint32_t>(entry >= 0 ? entry : -2 - entry);
}

struct CudaSlot {
  std::uint32_t state, block, head;
  std::uint32_t newer, older;  // LRU of the layer
  std::uint32_t prefetched;    // 1: brought by a prefetch and not yet used
  std::uint64_t call;          // the last call that wanted it
};

struct CudaLayer {
  std::uint32_t first_slot, slots;
  std::uint32_t newest, oldest;
  std::uint32_t tokens;
  std::uint64_t prefetches;
  CUevent fetched, written;  // on the copy stream: the layer's last prefetch, and its last write-back
};

struct CudaStore {
  std::uint64_t alive;
  Geometry g;
  CudaDevice device;
  kvsift_error error;  // of the last failed call
  kvsift_status lost;  // what every call answers; KVSIFT_OK: not lost
  std::uint32_t run_blocks, max_ranges, late_blocks;
  std::uint64_t host_bytes;

  CUstream copies;
  CUevent used;      // on the caller's stream: what was put there before a call
  CUevent received;  // likewise: lists have come

  char *slots;             // device, [slots][slot_bytes]
  std::int32_t *tables;    // device, [layers][KV heads][blocks]
  char *records;           // pinned, [layers][KV heads][blocks][slot_bytes]
  const char *records_seen;  // the same, as the device sees it
  std::uint64_t *sums;     // device, [layers][KV heads][blocks]: checksums; null: none are kept
  StoreFault *fault, *fault_seen;  // pinned, and as the device sees it
  kvsift_range *ranges;    // pinned, [query heads][max_ranges]
  std::uint32_t *counts;   // pinned, [query heads]
  std::uint32_t *missed;   // pinned, [query heads][max_ranges]: missed blocks,
  std::uint32_t *missed_counts;  //   and how many, [query heads]

  std::uint64_t call;
  CudaLayer *layers;
  CudaSlot *slot_states;
  std::int32_t *entries;   // as `tables`, on the host
  ReducedLists reduced;    // by a late cap
  kvsift_store_stats stats;

  CudaSlot &slot(const CudaLayer &layer, std::uint32_t local) const { return slot_states[layer.first_slot + local]; }
  std::uint64_t first_record(std::uint32_t layer) const { return g.record_index(layer, 0, 0); }
  std::uint32_t record(std::uint32_t head, std::uint32_t block) const { return head * g.blocks + block; }
  std::int32_t *entry(std::uint32_t layer, std::uint32_t record) const { return entries + first_record(layer) + record; }
};

constexpr std::uint64_t kAliveStore = 0x6b76736966745374ull;

// Where everything lies in the three arenas.
struct CudaStorePlaces {
  Geometry geometry;
  std::uint64_t tables, sums, device_bytes;   // device; the slots come first
  std::uint64_t ranges, counts, missed, missed_counts, fault, pinned_bytes;  // pinned; the records come first
  Offset<CudaLayer> layers;
  Offset<CudaSlot> slot_states;
  Offset<std::int32_t> entries;
  Offset<kvsift_range> reduced_ranges;
  Offset<std::uint32_t> reduced_range_counts, reduced_blocks, reduced_block_counts;
  std::uint64_t host_bytes;
};

kvsift_status lay_out_store(const kvsift_cuda_store_config &config, CudaStorePlaces *places);
kvsift_status create_store(const kvsift_cuda_store_config &config, const CudaStorePlaces &places,
                           const kvsift_cuda_arenas &arenas, void *stream, CudaStore **store);
// Waits for the copies under way.
void destroy_store(CudaStore *store);

// What every call answers first: what the store was lost for, or what the device has found wrong since, which loses it.
kvsift_status check_usable(CudaStore *store);
// A failure of the driver loses the store.
kvsift_status check_driver(CudaStore *store, CUresult result, const char *call);
// `later` goes on once `earlier` has come to where it is now; `mark` is recorded there.
kvsift_status order_streams(CudaStore *store, CUstream earlier, CUevent mark, CUstream later);

}  // namespace kvsift
