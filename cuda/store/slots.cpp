#include "cuda/store/slots.h"

namespace kvsift {
namespace {

void unlink(CudaStore *store, CudaLayer *layer, std::uint32_t local) {
  const CudaSlot &slot = store->slot(*layer, local);
  if (slot.newer == kNoSlot) layer->newest = slot.older;
  else store->slot(*layer, slot.newer).older = slot.older;
  if (slot.older == kNoSlot) layer->oldest = slot.newer;
  else store->slot(*layer, slot.older).newer = slot.newer;
}

void link_newest(CudaStore *store, CudaLayer *layer, std::uint32_t local) {
  CudaSlot &slot = store->slot(*layer, local);
  slot.newer = kNoSlot;
  slot.older = layer->newest;
  if (layer->newest == kNoSlot) layer->oldest = local;
  else store->slot(*layer, layer->newest).newer = local;
  layer->newest = local;
}

bool may_go(const CudaStore &store, const CudaLayer &layer, const CudaSlot &slot) {
  if (slot.state == kSlotFree) return true;
  return slot.state == kSlotHeld && slot.call != store.call && !pinned(store.g, layer, slot.block);
}

}  // namespace

void reset_slots(CudaStore *store, std::uint32_t index) {
  CudaLayer *layer = store->layers + index;
  layer->newest = layer->oldest = kNoSlot;
  // The first slot is the first to be taken.
  for (std::uint32_t i = 0; i < layer->slots; ++i) {
    store->slot(*layer, i) = CudaSlot{};
    link_newest(store, layer, i);
  }
}

void touch(CudaStore *store, CudaLayer *layer, std::uint32_t local) {
  store->slot(*layer, local).call = store->call;
  if (layer->newest == local) return;
  unlink(store, layer, local);
  link_newest(store, layer, local);
}

bool pinned(const Geometry &g, const CudaLayer &layer, std::uint32_t block) {
  const std::uint32_t first = block << g.block_shift;
  if (first < g.sink_tokens) return true;
  const std::uint32_t end = first + g.block_tokens;
  return end > layer.tokens || layer.tokens - end < g.local_tokens;
}

bool take_slot(CudaStore *store, std::uint32_t index, std::uint32_t head, std::uint32_t block, Move *move) {
  CudaLayer *layer = store->layers + index;
  std::uint32_t local = layer->oldest;
  while (local != kNoSlot && !may_go(*store, *layer, store->slot(*layer, local))) local = store->slot(*layer, local).newer;
  if (local == kNoSlot) return false;
  CudaSlot &slot = store->slot(*layer, local);
  *move = Move{store->record(head, block), local, kNoSlot};
  if (slot.state == kSlotHeld) {
    move->evicted = store->record(slot.head, slot.block);
    *store->entry(index, move->evicted) = kNotHere;
    ++store->stats.evictions;
  }
  slot.state = kSlotHeld;
  slot.head = head;
  slot.block = block;
  slot.prefetched = 0;
  *store->entry(index, move->record) = static_cast<std::int32_t>(local);
  touch(store, layer, local);
  return true;
}

bool settle(CudaStore *store, std::uint32_t index, std::uint32_t record) {
  std::int32_t *entry = store->entry(index, record);
  if (*entry >= kNotHere) return false;
  *entry = static_cast<std::int32_t>(slot_of(*entry));
  return true;
}

void release_slot(CudaStore *store, std::uint32_t index, std::uint32_t local) {
  CudaLayer *layer = store->layers + index;
  CudaSlot &slot = store->slot(*layer, local);
  *store->entry(index, store->record(slot.head, slot.block)) = kNotHere;
  slot.state = kSlotFree;
  slot.prefetched = 0;
  unlink(store, layer, local);
  // Free slots are the first to be taken: to the old end.
  slot.newer = layer->oldest;
  slot.older = kNoSlot;
  if (layer->oldest == kNoSlot) layer->newest = local;
  else store->slot(*layer, layer->oldest).older = local;
  layer->oldest = local;
}

}  // namespace kvsift
