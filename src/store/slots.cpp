#include "store/slots.h"

namespace kvsift {
namespace {

void unlink(Store *store, Layer *layer, std::uint32_t local) {
  const Slot &slot = slot_of(store, *layer, local);
  if (slot.newer == kNone) layer->newest = slot.older;
  else slot_of(store, *layer, slot.newer).older = slot.older;
  if (slot.older == kNone) layer->oldest = slot.newer;
  else slot_of(store, *layer, slot.older).newer = slot.newer;
}

void link_newest(Store *store, Layer *layer, std::uint32_t local) {
  Slot &slot = slot_of(store, *layer, local);
  slot.newer = kNone;
  slot.older = layer->newest;
  if (layer->newest == kNone) layer->oldest = local;
  else slot_of(store, *layer, layer->newest).newer = local;
  layer->newest = local;
}

bool may_go(const Store &store, const Layer &layer, const Slot &slot) {
  const std::uint32_t state = slot.state.load(std::memory_order_acquire);
  if (state == kFree) return true;
  if (slot.epoch == store.call) return false;
  return state == kFailed || (state == kClean && !pinned(store.g, layer, slot.block));
}

}  // namespace

void reset_slots(Store *store, std::uint32_t index) {
  Layer *layer = store->layers + index;
  layer->newest = layer->oldest = kNone;
  for (std::uint32_t i = layer->slots; i-- > 0;) {
    Slot &slot = slot_of(store, *layer, i);
    slot.state.store(kFree, std::memory_order_relaxed);
    slot.layer = index;
    slot.block = slot.head = 0;
    slot.epoch = 0;
    slot.prefetched = slot.wanted = 0;
    slot.run_next = slot.queue_next = kNone;
    slot.run_count = 0;
    link_newest(store, layer, i);
  }
}

void touch(Store *store, Layer *layer, std::uint32_t local) {
  slot_of(store, *layer, local).epoch = store->call;
  if (layer->newest == local) return;
  unlink(store, layer, local);
  link_newest(store, layer, local);
}

bool pinned(const Geometry &g, const Layer &layer, std::uint32_t block) {
  const std::uint32_t first = block << g.block_shift;
  if (first < g.sink_tokens) return true;
  const std::uint32_t end = first + g.block_tokens;
  return end > layer.tokens || layer.tokens - end < g.local_tokens;
}

std::uint32_t take_slot(Store *store, Layer *layer, std::uint32_t index) {
  std::uint32_t local = layer->oldest;
  while (local != kNone && !may_go(*store, *layer, slot_of(store, *layer, local))) {
    local = slot_of(store, *layer, local).newer;
  }
  if (local == kNone) return kNone;
  Slot &slot = slot_of(store, *layer, local);
  const std::uint32_t state = slot.state.load(std::memory_order_relaxed);
  if (state != kFree) *entry_of(*store, index, slot.head, slot.block) = kNotResident;
  if (state == kClean) ++store->counts.evictions;
  slot.prefetched = 0;
  touch(store, layer, local);
  return local;
}

void release_slot(Store *store, Layer *layer, std::uint32_t local) {
  Slot &slot = slot_of(store, *layer, local);
  *entry_of(*store, slot.layer, slot.head, slot.block) = kNotResident;
  slot.state.store(kFree, std::memory_order_relaxed);
  slot.prefetched = 0;
  unlink(store, layer, local);
  // Free slots are the first to be taken: to the old end.
  slot.newer = layer->oldest;
  slot.older = kNone;
  if (layer->oldest == kNone) layer->newest = local;
  else slot_of(store, *layer, layer->oldest).older = local;
  layer->oldest = local;
}

bool release_failed(Store *store, Layer *layer) {
  bool any = false;
  for (std::uint32_t local = 0; local < layer->slots; ++local) {
    if (slot_of(store, *layer, local).state.load(std::memory_order_acquire) != kFailed) continue;
    release_slot(store, layer, local);
    any = true;
  }
  return any;
}

std::int32_t settle(Store *store, Layer *layer, std::int32_t *entry) {
  if (*entry >= kNotResident) return *entry;
  const std::uint32_t local = slot_in_flight(*entry);
  const std::uint32_t state = slot_of(store, *layer, local).state.load(std::memory_order_acquire);
  if (state == kClean) *entry = static_cast<std::int32_t>(local);
  else if (state == kFailed) release_slot(store, layer, local);
  return *entry;
}

}  // namespace kvsift
