// The ring of trace events, and the clock that is read only where somebody asked for times.
#pragma once

#include "store/clock.h"
#include "store/store.h"

namespace kvsift {

inline std::uint64_t event_clock(const Store &store) {
  return store.timing != 0 || store.event_capacity != 0 ? now_ns() : 0;
}

// Wants the mutex held.
inline void add_event(Store *store, const kvsift_store_event &event) {
  if (store->event_capacity == 0) return;
  if (store->event_count == store->event_capacity) {
    store->event_first = (store->event_first + 1) % store->event_capacity;
    --store->event_count;
  }
  const std::uint32_t at = (store->event_first + store->event_count) % store->event_capacity;
  store->events[at] = event;
  ++store->event_count;
}

// A call of the caller's, from `begin_ns` to now.
inline void add_call(Store *store, std::uint32_t kind, std::uint64_t begin_ns, std::uint32_t layer,
                     std::uint32_t block, std::uint32_t blocks) {
  if (store->event_capacity == 0) return;
  pthread_mutex_lock(&store->mutex);
  add_event(store, kvsift_store_event{begin_ns, now_ns(), kind, 0, layer, 0, block, blocks});
  pthread_mutex_unlock(&store->mutex);
}

}  // namespace kvsift
