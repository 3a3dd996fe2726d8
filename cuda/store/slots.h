// The fast tier of a layer: which block lies in which slot, and which slot goes next.
#pragma once

#include "cuda/store/store.h"

namespace kvsift {

// All slots free, in order.
void reset_slots(CudaStore *store, std::uint32_t layer);

// To the new end of the LRU, wanted by the present call.
void touch(CudaStore *store, CudaLayer *layer, std::uint32_t local);

// Sinks, local tokens and the block that append fills stay.
bool pinned(const Geometry &g, const CudaLayer &layer, std::uint32_t block);

// Gives the longest unused slot that may go to the block; false where all are pinned or wanted by the present call.
bool take_slot(CudaStore *store, std::uint32_t layer, std::uint32_t head, std::uint32_t block, Move *move);

// A block that was filled behind is one like any other from here on; whether it was one.
bool settle(CudaStore *store, std::uint32_t layer, std::uint32_t record);

// Forgets the block that has the slot.
void release_slot(CudaStore *store, std::uint32_t layer, std::uint32_t local);

}  // namespace kvsift
