#include "store/fetch.h"

#include "core/status.h"
#include "store/slots.h"
#include "store/trace.h"

namespace kvsift {
namespace {

constexpr std::uint32_t kLayerBits = 16;

void begin_fetch(Store *store, std::uint32_t index, std::uint32_t local, std::uint32_t head,
                 std::uint32_t block, std::int32_t *entry, bool ahead, Batch *batch) {
  Layer *layer = store->layers + index;
  Slot &slot = slot_of(store, *layer, local);
  slot.block = block;
  slot.head = head;
  slot.prefetched = ahead;
  slot.state.store(kFetching, std::memory_order_relaxed);
  *entry = in_flight(local);
  batch->add(layer->first_slot + local);
}

// Marks what the selection already has, so that making room does not take it away.
void touch_present(Store *store, std::uint32_t index, const kvsift_selection &selection, bool used) {
  Layer *layer = store->layers + index;
  for_each_block(*store, index, selection, [&](std::uint32_t, std::uint32_t, std::int32_t *entry) {
    const std::int32_t at = settle(store, layer, entry);
    if (at == kNotResident) return true;
    const std::uint32_t local = at >= 0 ? static_cast<std::uint32_t>(at) : slot_in_flight(at);
    Slot &slot = slot_of(store, *layer, local);
    if (slot.epoch == store->call) return true;
    touch(store, layer, local);
    if (!used) return true;
    ++(slot.prefetched != 0 ? store->counts.prefetched : store->counts.hits);
    slot.prefetched = 0;
    return true;
  });
}

// Fetches what is missing. Beyond `most` blocks, and the pinned ones, nobody waits for it: it is fetched behind, for steps to
// come, as far as there are slots.
kvsift_status fetch_missing(Store *store, std::uint32_t index, const kvsift_selection &selection,
                            std::uint32_t most) {
  Layer *layer = store->layers + index;
  kvsift_status status = KVSIFT_OK;
  std::uint32_t fetched = 0;
  Batch batch(store), behind(store);
  for_each_block(*store, index, selection, [&](std::uint32_t head, std::uint32_t block, std::int32_t *entry) {
    if (*entry != kNotResident) return true;
    const bool late = fetched < most || pinned(store->g, *layer, block);
    std::uint32_t local = take_slot(store, layer, index);
    if (!late) {
      if (local != kNone) begin_fetch(store, index, local, head, block, entry, true, &behind);
      return true;
    }
    if (local == kNone) {
      batch.submit(kUrgent);
      status = obtain_slot(store, index, &local);
      if (status != KVSIFT_OK) return false;
    }
    begin_fetch(store, index, local, head, block, entry, false, &batch);
    ++fetched;
    ++store->counts.late;
    return true;
  });
  batch.submit(kUrgent);
  store->counts.blocks_prefetched += behind.records();
  behind.submit(kAhead);
  return status;
}

// Waits for the selection's slots that are on their way; those that are still marked as prefetched were begun behind by this
// call.
void await_selection(Store *store, std::uint32_t index, const kvsift_selection &selection,
                     std::uint64_t deadline_ns) {
  Layer *layer = store->layers + index;
  if (layer->fetching.load(std::memory_order_acquire) == 0) return;
  const std::uint64_t begin_ns = event_clock(*store);
  pthread_mutex_lock(&store->mutex);
  const auto mark = [&](std::uint32_t wanted) {
    for_each_block(*store, index, selection, [&](std::uint32_t, std::uint32_t, std::int32_t *entry) {
      if (*entry >= kNotResident) return true;
      Slot &slot = slot_of(store, *layer, slot_in_flight(*entry));
      if (slot.prefetched != 0 || slot.wanted == wanted || slot.state.load(std::memory_order_relaxed) != kFetching) return true;
      slot.wanted = wanted;
      store->wanted_left += wanted != 0 ? 1 : UINT32_MAX;
      return true;
    });
  };
  mark(1);
  bool in_time = true;
  while (store->wanted_left > 0 && in_time) in_time = wait_done(store, deadline_ns);
  if (!in_time) mark(0);
  const std::uint64_t end_ns = event_clock(*store);
  add_event(store, kvsift_store_event{begin_ns, end_ns, KVSIFT_STORE_EVENT_WAIT, 0, index, 0, 0, 0});
  pthread_mutex_unlock(&store->mutex);
  if (store->timing != 0) store->counts.waited_ns += end_ns - begin_ns;
}

struct Outcome {
  std::uint32_t missing, failed;
};

// What was begun behind counts as missing even if it has come: a cap on blocks should not depend on timing.
Outcome settle_selection(Store *store, std::uint32_t index, const kvsift_selection &selection) {
  Outcome outcome{0, 0};
  Layer *layer = store->layers + index;
  for_each_block(*store, index, selection, [&](std::uint32_t, std::uint32_t, std::int32_t *entry) {
    const bool was_in_flight = *entry < kNotResident;
    const bool behind = was_in_flight && slot_of(store, *layer, slot_in_flight(*entry)).prefetched != 0;
    if (!behind && settle(store, layer, entry) >= 0) return true;
    ++outcome.missing;
    outcome.failed += was_in_flight && *entry == kNotResident;
    return true;
  });
  return outcome;
}

}  // namespace

kvsift_status obtain_slot(Store *store, std::uint32_t index, std::uint32_t *local) {
  Layer *layer = store->layers + index;
  while (true) {
    pthread_mutex_lock(&store->mutex);
    const std::uint64_t seen = store->completions;
    const bool busy = store->writes_left > 0 || layer->fetching.load(std::memory_order_relaxed) > 0;
    const bool failed = store->writes_failed > 0;
    pthread_mutex_unlock(&store->mutex);
    *local = take_slot(store, layer, index);
    if (*local != kNone) return KVSIFT_OK;
    if (!busy && failed) return report_write_error(store);
    if (!busy) {
      return fail(&store->error, KVSIFT_CAPACITY, "layer ", index, ": its ", layer->slots,
                  " slots in fast memory are too few for what is wanted at once and the pinned tokens");
    }
    ++store->counts.slot_waits;
    pthread_mutex_lock(&store->mutex);
    store->waiting_any = 1;
    while (store->completions == seen) wait_done(store, 0);
    store->waiting_any = 0;
    pthread_mutex_unlock(&store->mutex);
  }
}

kvsift_ticket prefetch(Store *store, std::uint32_t index, const kvsift_selection &selection) {
  const std::uint64_t begin_ns = event_clock(*store);
  Layer *layer = store->layers + index;
  ++store->call;
  if (layer->fetching.load(std::memory_order_acquire) == 0) layer->prefetches_done = layer->prefetches;
  ++layer->prefetches;
  touch_present(store, index, selection, false);
  Batch batch(store);
  bool room = true;
  for_each_block(*store, index, selection, [&](std::uint32_t head, std::uint32_t block, std::int32_t *entry) {
    if (*entry != kNotResident) return true;
    const std::uint32_t local = room ? take_slot(store, layer, index) : kNone;
    if (local == kNone) {
      room = false;
      ++store->counts.prefetch_unplaced;
      return true;
    }
    begin_fetch(store, index, local, head, block, entry, true, &batch);
    return true;
  });
  const std::uint32_t fetched = batch.records();
  store->counts.blocks_prefetched += fetched;
  batch.submit(kAhead);
  add_call(store, KVSIFT_STORE_EVENT_PREFETCH, begin_ns, index, 0, fetched);
  return layer->prefetches << kLayerBits | index;
}

bool ticket_exists(const Store &store, kvsift_ticket ticket) {
  const std::uint64_t layer = ticket & ((1u << kLayerBits) - 1), number = ticket >> kLayerBits;
  return layer < store.g.layers && number > 0 && number <= store.layers[layer].prefetches;
}

bool ticket_done(const Store &store, kvsift_ticket ticket) {
  const Layer &layer = store.layers[ticket & ((1u << kLayerBits) - 1)];
  return ticket >> kLayerBits <= layer.prefetches_done ||
         layer.fetching.load(std::memory_order_acquire) == 0;
}

kvsift_status wait_ticket(Store *store, kvsift_ticket ticket) {
  const std::uint32_t index = ticket & ((1u << kLayerBits) - 1);
  Layer *layer = store->layers + index;
  if (!ticket_done(*store, ticket)) {
    const std::uint64_t begin_ns = event_clock(*store);
    wait_until(store, 0, [&] { return layer->fetching.load(std::memory_order_relaxed) == 0; });
    if (store->timing != 0) store->counts.waited_ns += now_ns() - begin_ns;
    add_call(store, KVSIFT_STORE_EVENT_WAIT, begin_ns, index, 0, 0);
  }
  pthread_mutex_lock(&store->mutex);
  const bool failed = layer->fetch_failed != 0;
  layer->fetch_failed = 0;
  pthread_mutex_unlock(&store->mutex);
  return failed && release_failed(store, layer) ? report_read_error(store) : KVSIFT_OK;
}

kvsift_status fetch_selection(Store *store, std::uint32_t index, const kvsift_selection &selection,
                              bool capped, bool *missing) {
  const std::uint64_t begin_ns = event_clock(*store);
  const std::uint64_t late_before = store->counts.late;
  ++store->call;
  touch_present(store, index, selection, true);
  std::uint64_t deadline = 0;
  if (capped && store->late_microseconds != KVSIFT_STORE_NO_LIMIT) {
    deadline = now_ns() + store->late_microseconds * 1000ull;
  }
  Outcome outcome{0, 0};
  // What failed ahead of use gets a second chance here, what fails twice is an error.
  for (int attempt = 0; attempt < 2; ++attempt) {
    const std::uint32_t most = capped ? store->late_blocks : KVSIFT_STORE_NO_LIMIT;
    if (kvsift_status s = fetch_missing(store, index, selection, most)) return s;
    await_selection(store, index, selection, deadline);
    outcome = settle_selection(store, index, selection);
    if (outcome.failed == 0) break;
  }
  add_call(store, KVSIFT_STORE_EVENT_RESOLVE, begin_ns, index, 0,
           static_cast<std::uint32_t>(store->counts.late - late_before));
  if (outcome.failed != 0) return report_read_error(store);
  *missing = outcome.missing != 0;
  return KVSIFT_OK;
}

void describe_cache(const Store &store, std::uint32_t index, kvsift_cache *cache) {
  const Geometry &g = store.g;
  const Layer &layer = store.layers[index];
  const std::uint8_t *slots = store.data(layer.first_slot);
  kvsift_view view{};
  view.type = g.storage;
  view.token_stride = g.row_bytes;
  view.page_stride = g.slot_bytes;
  if (g.storage == KVSIFT_I8) {
    view.scale_token_stride = sizeof(float);
    view.scale_page_stride = g.slot_bytes;
  }
  cache->tokens = layer.tokens;
  cache->keys = cache->values = view;
  cache->keys.data = slots;
  cache->values.data = slots + g.keys_bytes;
  if (g.storage == KVSIFT_I8) {
    cache->keys.scales = reinterpret_cast<const float *>(slots + g.scales_at);
    cache->values.scales = cache->keys.scales + g.block_tokens;
  }
  cache->block_table = store.table(index);
  cache->page_tokens = g.block_tokens;
  cache->block_table_stride = g.blocks;
}

}  // namespace kvsift
