#include "core/status.h"
#include "store/fetch.h"
#include "store/rows.h"
#include "store/slots.h"
#include "store/trace.h"

namespace kvsift {
namespace {

// Part of an append, all heads: [begin, end) of the cache, whole blocks but for its ends.
struct Stretch {
  std::uint32_t begin, end;
  std::uint32_t first_block, last_block;
};

// Long enough for writes of many blocks at once, short enough to leave most of the fast tier alone.
std::uint32_t stretch_blocks(const Store &store, std::uint32_t layer) {
  const std::uint32_t quarter = store.layers[layer].slots / (4 * store.g.kv_heads);
  return quarter < 1 ? 1 : quarter < kRunMost ? quarter : kRunMost;
}

// While writes fail new blocks would fill the fast tier, and leave none for what is to be attended to.
bool writes_fail(Store *store) {
  pthread_mutex_lock(&store->mutex);
  const bool fail = store->writes_failed > 0 || store->commit_failed != 0;
  pthread_mutex_unlock(&store->mutex);
  return fail;
}

// A slot for every head and block, before anything is written: a failure then leaves the cache as it was.
kvsift_status reserve(Store *store, std::uint32_t index, const Stretch &stretch) {
  Layer *layer = store->layers + index;
  kvsift_status status = KVSIFT_OK;
  for (std::uint32_t h = 0; h < store->g.kv_heads && status == KVSIFT_OK; ++h) {
    for (std::uint32_t b = stretch.first_block; b <= stretch.last_block && status == KVSIFT_OK; ++b) {
      std::int32_t *entry = entry_of(*store, index, h, b);
      if (*entry >= 0) continue;
      std::uint32_t local = kNone;
      status = writes_fail(store) ? report_write_error(store) : obtain_slot(store, index, &local);
      if (status != KVSIFT_OK) break;
      Slot &slot = slot_of(store, *layer, local);
      slot.block = b;
      slot.head = h;
      slot.state.store(kOpen, std::memory_order_relaxed);
      *entry = static_cast<std::int32_t>(local);
    }
  }
  if (status == KVSIFT_OK) return status;
  for (std::uint32_t h = 0; h < store->g.kv_heads; ++h) {
    for (std::uint32_t b = stretch.first_block; b <= stretch.last_block; ++b) {
      const std::int32_t entry = *entry_of(*store, index, h, b);
      if (b << store->g.block_shift >= layer->tokens && entry >= 0) {
        release_slot(store, layer, static_cast<std::uint32_t>(entry));
      }
    }
  }
  return status;
}

void fill(Store *store, std::uint32_t index, const Stretch &stretch, const kvsift_view &keys,
          const kvsift_view &values, std::uint32_t view_first) {
  const Geometry &g = store->g;
  Layer *layer = store->layers + index;
  Batch written(store);
  for (std::uint32_t h = 0; h < g.kv_heads; ++h) {
    for (std::uint32_t b = stretch.first_block; b <= stretch.last_block; ++b) {
      const auto local = static_cast<std::uint32_t>(*entry_of(*store, index, h, b));
      const std::uint32_t start = b << g.block_shift, stop = start + g.block_tokens;
      const std::uint32_t from = start < stretch.begin ? stretch.begin : start;
      const std::uint32_t to = stop < stretch.end ? stop : stretch.end;
      std::uint8_t *record = store->data(layer->first_slot + local);
      auto *scales = reinterpret_cast<float *>(record + g.scales_at);
      const std::uint32_t source = view_first + (from - stretch.begin);
      store_rows(g, keys, h, source, to - from, record, scales, from - start);
      store_rows(g, values, h, source, to - from, record + g.keys_bytes, scales + g.block_tokens,
                 from - start);
      touch(store, layer, local);
      if (to != stop) continue;
      slot_of(store, *layer, local).state.store(kDirty, std::memory_order_relaxed);
      written.add(layer->first_slot + local);
    }
  }
  layer->tokens = stretch.end;
  written.submit(kWriteBehind);
}

}  // namespace

kvsift_status append(Store *store, std::uint32_t index, std::uint32_t tokens, const kvsift_view &keys,
                     const kvsift_view &values) {
  const Geometry &g = store->g;
  const std::uint64_t begin_ns = event_clock(*store);
  Layer *layer = store->layers + index;
  const std::uint32_t first = layer->tokens, end = first + tokens;
  if (g.storage == KVSIFT_I8) {
    const kvsift_view *both[] = {&keys, &values};
    for (const kvsift_view *view : both) {
      const std::uint32_t bad = first_not_finite(g, *view, tokens);
      if (bad < tokens) {
        return fail(&store->error, KVSIFT_NOT_FINITE, "append: layer ", index, ", token ", first + bad,
                    view == &keys ? " has a key" : " has a value", " that is not finite");
      }
    }
  }
  while (layer->tokens < end) {
    Stretch stretch{layer->tokens, end, layer->tokens >> g.block_shift, 0};
    stretch.last_block = stretch.first_block + stretch_blocks(*store, index) - 1;
    const std::uint64_t limit = (std::uint64_t{stretch.last_block} + 1) << g.block_shift;
    if (limit < stretch.end) stretch.end = static_cast<std::uint32_t>(limit);
    stretch.last_block = (stretch.end - 1) >> g.block_shift;
    ++store->call;
    if (kvsift_status s = reserve(store, index, stretch)) return s;
    fill(store, index, stretch, keys, values, stretch.begin - first);
  }
  add_call(store, KVSIFT_STORE_EVENT_APPEND, begin_ns, index, first >> g.block_shift,
           (tokens + g.block_tokens - 1) >> g.block_shift);
  return KVSIFT_OK;
}

}  // namespace kvsift
