// The fast tier of a layer: which block lies in which slot, and which slot goes next.
#pragma once

#include "store/store.h"

namespace kvsift {

inline Slot &slot_of(Store *store, const Layer &layer, std::uint32_t local) {
  return store->slots[layer.first_slot + local];
}

// All slots free, in order.
void reset_slots(Store *store, std::uint32_t layer);

// To the new end of the LRU, wanted by the present call.
void touch(Store *store, Layer *layer, std::uint32_t local);

// Sinks, local tokens and the block that append fills stay.
bool pinned(const Geometry &g, const Layer &layer, std::uint32_t block);

// The longest unused slot that may go (of a block, or of a fetch that failed), emptied and touched; kNone where all are pinned,
// busy, or wanted by the present call.
std::uint32_t take_slot(Store *store, Layer *layer, std::uint32_t index);

// Gives a slot back, and takes its block out of the table.
void release_slot(Store *store, Layer *layer, std::uint32_t local);

// Gives back the slots of fetches that failed and were not asked for again. False where there are none.
bool release_failed(Store *store, Layer *layer);

// Brings a table entry up to date: in flight and arrived becomes resident, failed becomes not resident.
std::int32_t settle(Store *store, Layer *layer, std::int32_t *entry);

inline std::int32_t *entry_of(const Store &store, std::uint32_t layer, std::uint32_t head,
                              std::uint32_t block) {
  return store.table(layer) + std::uint64_t{head} * store.g.blocks + block;
}

}  // namespace kvsift
