// Reading tokens back, and forgetting them.
#include <cstring>

#include "core/status.h"
#include "store/fetch.h"
#include "store/recover.h"
#include "store/slots.h"

namespace kvsift {
namespace {

// Has tokens [begin, end) of KV heads [first, last) in fast memory, all at once: none makes room for another.
kvsift_status fetch_part(Store *store, std::uint32_t layer, std::uint32_t first, std::uint32_t last,
                         std::uint32_t begin, std::uint32_t end) {
  kvsift_selection part{};
  part.tokens = store->layers[layer].tokens;
  part.lists = store->g.kv_heads;
  part.range_stride = 1;
  part.ranges = store->part;
  part.range_counts = store->part_counts;
  for (std::uint32_t h = 0; h < part.lists; ++h) {
    store->part[h] = kvsift_range{begin, end};
    store->part_counts[h] = h >= first && h < last ? 1 : 0;
  }
  bool missing = false;
  return fetch_selection(store, layer, part, false, &missing);
}

// The workers have nothing left to do, and will not start on anything of their own.
void wait_idle(Store *store) {
  const Store &s = *store;
  pthread_mutex_lock(&store->mutex);
  store->waiting_any = 1;
  while (s.queues[kUrgent].first != kNone || s.queues[kAhead].first != kNone || s.writes_left > 0 ||
         s.reads_under_way > 0 || s.committing != 0 || commit_ready(s)) {
    wait_done(store, 0);
  }
  store->waiting_any = 0;
  pthread_mutex_unlock(&store->mutex);
}

template <class Use>
void for_each_longer(Store *store, std::uint32_t tokens, Use use) {
  for (std::uint32_t l = 0; l < store->g.layers; ++l) {
    for (std::uint32_t h = 0; store->layers[l].tokens > tokens && h < store->g.kv_heads; ++h) use(l, h);
  }
}

// After an attempt to erase the entry of `block`. One that failed may have damaged it: it is written again.
void revoke(Store *store, std::uint32_t block, bool erased) {
  if (store->committed > block) store->committed = block;
  if (erased) {
    store->entries = block;
    ++store->epoch;
  } else {
    pthread_cond_signal(&store->work);
  }
}

// The block that the cache will end in takes rows again.
void reopen(Store *store, std::uint32_t tokens) {
  for_each_longer(store, tokens, [&](std::uint32_t l, std::uint32_t h) {
    const std::int32_t local = *entry_of(*store, l, h, tokens >> store->g.block_shift);
    Slot &slot = slot_of(store, store->layers[l], static_cast<std::uint32_t>(local));
    if (slot.state.load(std::memory_order_relaxed) == kUnwritten) --store->writes_failed;
    slot.state.store(kOpen, std::memory_order_relaxed);
  });
}

void forget(Store *store, std::uint32_t tokens) {
  const Geometry &g = store->g;
  const std::uint32_t first = (tokens + g.block_tokens - 1) >> g.block_shift;
  for_each_longer(store, tokens, [&](std::uint32_t l, std::uint32_t h) {
    Layer *layer = store->layers + l;
    for (std::uint32_t b = first; b < g.blocks; ++b) {
      const std::int32_t at = settle(store, layer, entry_of(*store, l, h, b));
      if (at < 0) continue;
      const auto local = static_cast<std::uint32_t>(at);
      if (slot_of(store, *layer, local).state.load(std::memory_order_relaxed) == kUnwritten) {
        --store->writes_failed;
      }
      release_slot(store, layer, local);
    }
  });
  for (std::uint32_t l = 0; l < g.layers; ++l) {
    if (store->layers[l].tokens > tokens) store->layers[l].tokens = tokens;
  }
  for (std::uint32_t b = tokens >> g.block_shift; b < g.blocks; ++b) store->written[b] = 0;
}

// Blocks of one head that are sure to find slots beside the pinned ones.
std::uint32_t part_blocks(const Store &store, std::uint32_t layer) {
  const Geometry &g = store.g;
  const std::uint32_t kept = ((g.sink_tokens + g.block_tokens - 1) >> g.block_shift) +
                             ((g.local_tokens + g.block_tokens - 1) >> g.block_shift) + 1;
  const std::uint32_t all = store.layers[layer].slots / g.kv_heads;
  const std::uint32_t free = all > kept ? all - kept : 1;
  return free < kRunMost ? free : kRunMost;
}

}  // namespace

kvsift_status read_tokens(Store *store, std::uint32_t layer, std::uint32_t head, std::uint32_t first,
                          std::uint32_t tokens, void *keys, void *values, float *key_scales,
                          float *value_scales) {
  const Geometry &g = store->g;
  const std::uint32_t part = part_blocks(*store, layer) << g.block_shift;
  for (std::uint32_t at = first; at < first + tokens;) {
    const std::uint32_t left = first + tokens - at, aligned = part - at % g.block_tokens;
    const std::uint32_t end = at + (left < aligned ? left : aligned);
    if (kvsift_status s = fetch_part(store, layer, head, head + 1, at, end)) return s;
    while (at < end) {
      const std::uint32_t offset = at % g.block_tokens, room = g.block_tokens - offset;
      const std::uint32_t rows = end - at < room ? end - at : room;
      const std::uint64_t to = std::uint64_t{at} - first;
      const auto local = static_cast<std::uint32_t>(*entry_of(*store, layer, head, at >> g.block_shift));
      const std::uint8_t *record = store->data(store->layers[layer].first_slot + local);
      const std::uint8_t *source = record + offset * g.row_bytes;
      std::memcpy(static_cast<char *>(keys) + to * g.row_bytes, source, rows * g.row_bytes);
      std::memcpy(static_cast<char *>(values) + to * g.row_bytes, source + g.keys_bytes, rows * g.row_bytes);
      if (g.storage == KVSIFT_I8) {
        const auto *scales = reinterpret_cast<const float *>(record + g.scales_at) + offset;
        std::memcpy(key_scales + to, scales, rows * sizeof(float));
        std::memcpy(value_scales + to, scales + g.block_tokens, rows * sizeof(float));
      }
      at += rows;
    }
  }
  return KVSIFT_OK;
}

kvsift_status truncate(Store *store, std::uint32_t tokens) {
  const std::uint32_t open = tokens >> store->g.block_shift, begin = open << store->g.block_shift;
  wait_idle(store);
  for (std::uint32_t l = 0; begin < tokens && l < store->g.layers; ++l) {
    if (store->layers[l].tokens <= tokens) continue;
    if (kvsift_status s = fetch_part(store, l, 0, store->g.kv_heads, begin, tokens)) return s;
  }
  // An entry that is no longer true must go before its records change. The workers are idle, so nobody needs the lock, which a
  // device of the caller's should not be called with.
  const bool named = store->entries > open;
  const kvsift_status status = named ? erase_entry(store, open) : KVSIFT_OK;
  pthread_mutex_lock(&store->mutex);
  if (named) revoke(store, open, status == KVSIFT_OK);
  if (status == KVSIFT_OK) {
    if (begin < tokens) reopen(store, tokens);
    forget(store, tokens);
  }
  pthread_mutex_unlock(&store->mutex);
  return status;
}

}  // namespace kvsift
