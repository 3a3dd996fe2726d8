// What a store says about itself.
#include "store_checks.h"

using namespace kvsift;

extern "C" kvsift_status kvsift_store_get_info(const kvsift_store *handle, kvsift_store_info *info) {
  if (!is_store(handle)) return KVSIFT_INVALID_ARGUMENT;
  Store *store = store_of(const_cast<kvsift_store *>(handle));
  if (kvsift_status s = check_size(&store->error, "info", info)) return s;
  const Geometry &g = store->g;
  info->tokens = store->layers[0].tokens;
  for (uint32_t l = 1; l < g.layers; ++l) {
    if (store->layers[l].tokens < info->tokens) info->tokens = store->layers[l].tokens;
  }
  pthread_mutex_lock(&store->mutex);
  info->durable_tokens = store->committed * g.block_tokens;
  pthread_mutex_unlock(&store->mutex);
  info->block_tokens = g.block_tokens;
  info->slots = g.kv_heads * g.fast_blocks;
  info->io = store->io;
  info->direct = store->device.direct;
  info->reserved = 0;
  info->slot_bytes = g.slot_bytes;
  info->slow_bytes = g.slow_bytes;
  info->arena_bytes = store->arena_bytes;
  return KVSIFT_OK;
}

extern "C" uint32_t kvsift_store_layer_tokens(const kvsift_store *handle, uint32_t layer) {
  if (!is_store(handle) || layer >= store_of(handle)->g.layers) return 0;
  return store_of(handle)->layers[layer].tokens;
}

extern "C" kvsift_status kvsift_store_get_stats(kvsift_store *handle, kvsift_store_stats *stats) {
  if (!is_store(handle)) return KVSIFT_INVALID_ARGUMENT;
  Store *store = store_of(handle);
  if (kvsift_status s = check_size(&store->error, "stats", stats)) return s;
  const uint32_t size = stats->struct_size;
  pthread_mutex_lock(&store->mutex);
  const kvsift_store_stats workers = store->worker_counts;
  pthread_mutex_unlock(&store->mutex);
  *stats = store->counts;
  stats->struct_size = size;
  stats->bytes_read = workers.bytes_read;
  stats->bytes_written = workers.bytes_written;
  stats->reads = workers.reads;
  stats->writes = workers.writes;
  stats->io_errors = workers.io_errors;
  stats->corrupt_records = workers.corrupt_records;
  stats->read_ns = workers.read_ns;
  return KVSIFT_OK;
}

extern "C" kvsift_status kvsift_store_read_trace(kvsift_store *handle, kvsift_store_event *events, uint32_t capacity,
                                                 uint32_t *count) {
  if (!is_store(handle)) return KVSIFT_INVALID_ARGUMENT;
  Store *store = store_of(handle);
  if (count == nullptr || (events == nullptr && capacity > 0)) {
    return fail(&store->error, KVSIFT_INVALID_ARGUMENT, "events or count is null");
  }
  pthread_mutex_lock(&store->mutex);
  *count = store->event_count < capacity ? store->event_count : capacity;
  for (uint32_t i = 0; i < *count; ++i) {
    events[i] = store->events[store->event_first];
    store->event_first = (store->event_first + 1) % store->event_capacity;
  }
  store->event_count -= *count;
  pthread_mutex_unlock(&store->mutex);
  return KVSIFT_OK;
}

extern "C" const char *kvsift_store_last_error(const kvsift_store *handle) {
  return is_store(handle) ? store_of(handle)->error.message : "";
}
