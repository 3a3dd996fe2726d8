// Life and steps of a store.
#include <cstring>

#include "store/fetch.h"
#include "store_checks.h"

using namespace kvsift;

extern "C" kvsift_status kvsift_store_config_init(kvsift_store_config *config, uint32_t backend) {
  if (config == nullptr || backend > KVSIFT_STORE_CUSTOM) return KVSIFT_INVALID_ARGUMENT;
  if (config->struct_size < sizeof *config) return KVSIFT_INVALID_STRUCT_SIZE;
  const uint32_t size = config->struct_size;
  *config = kvsift_store_config{};
  config->struct_size = size;
  config->backend = backend;
  config->block_tokens = 16;
  config->type = config->storage = KVSIFT_F16;
  config->sink_tokens = 16;
  config->local_tokens = 64;
  config->late_blocks = config->late_microseconds = KVSIFT_STORE_NO_LIMIT;
  config->alignment = backend == KVSIFT_STORE_HOST ? 64 : 4096;
  config->direct = 1;
  config->threads = 2;
  config->depth = 32;
  config->checksums = config->verify = 1;
  return KVSIFT_OK;
}

// The alignment of the arena: the slots stand at its start.
static uint64_t arena_alignment(const Geometry &g) { return g.alignment > kAlign ? g.alignment : kAlign; }

extern "C" kvsift_status kvsift_store_arena_size(const kvsift_store_config *config, uint64_t *bytes,
                                                 uint64_t *alignment) {
  if (kvsift_status s = check_config(config)) return s;
  if (bytes == nullptr) return fail(config->error, KVSIFT_INVALID_ARGUMENT, "bytes is null");
  Geometry g;
  Layout layout;
  Places places;
  if (kvsift_status s = make_geometry(*config, &g)) return s;
  if (kvsift_status s = lay_out(*config, g, &layout, &places)) return s;
  *bytes = layout.used();
  if (alignment != nullptr) *alignment = arena_alignment(g);
  return KVSIFT_OK;
}

extern "C" kvsift_status kvsift_store_slow_size(const kvsift_store_config *config, uint64_t *bytes) {
  if (kvsift_status s = check_config(config)) return s;
  if (bytes == nullptr) return fail(config->error, KVSIFT_INVALID_ARGUMENT, "bytes is null");
  Geometry g;
  if (kvsift_status s = make_geometry(*config, &g)) return s;
  *bytes = g.slow_bytes;
  return KVSIFT_OK;
}

static kvsift_status make(const kvsift_store_config *config, bool fresh, void *arena, uint64_t bytes,
                          kvsift_store **store) {
  if (store == nullptr) return KVSIFT_INVALID_ARGUMENT;
  *store = nullptr;
  if (kvsift_status s = check_config(config)) return s;
  Geometry g;
  if (kvsift_status s = make_geometry(*config, &g)) return s;
  if (arena == nullptr) return fail(config->error, KVSIFT_INVALID_ARGUMENT, "arena is null");
  if (reinterpret_cast<std::uintptr_t>(arena) % arena_alignment(g) != 0) {
    return fail(config->error, KVSIFT_MISALIGNED, "arena must start at a multiple of ", arena_alignment(g), " bytes");
  }
  if (config->backend == KVSIFT_STORE_HOST) {
    if (config->host_memory == nullptr || config->host_bytes < g.slow_bytes) {
      return fail(config->error, KVSIFT_INVALID_ARGUMENT, "store config: host_memory is null, or host_bytes ",
                  config->host_bytes, " less than the ", g.slow_bytes, " needed");
    }
    if (reinterpret_cast<std::uintptr_t>(config->host_memory) % g.alignment != 0) {
      return fail(config->error, KVSIFT_MISALIGNED, "store config: host_memory must start at a multiple of ", g.alignment);
    }
  }
  Store *made = nullptr;
  if (kvsift_status s = create_store(*config, fresh, arena, bytes, &made)) return s;
  *store = reinterpret_cast<kvsift_store *>(made);
  return KVSIFT_OK;
}

extern "C" kvsift_status kvsift_store_create(const kvsift_store_config *config, void *arena, uint64_t bytes,
                                             kvsift_store **store) {
  return make(config, true, arena, bytes, store);
}

extern "C" kvsift_status kvsift_store_open(const kvsift_store_config *config, void *arena, uint64_t bytes,
                                           kvsift_store **store) {
  return make(config, false, arena, bytes, store);
}

extern "C" kvsift_status kvsift_store_flush(kvsift_store *store) {
  return is_store(store) ? flush_store(store_of(store)) : KVSIFT_INVALID_ARGUMENT;
}

extern "C" kvsift_status kvsift_store_close(kvsift_store *store) {
  return is_store(store) ? close_store(store_of(store)) : KVSIFT_INVALID_ARGUMENT;
}

extern "C" kvsift_status kvsift_store_append(kvsift_store *handle, uint32_t layer, uint32_t first_token, uint32_t tokens,
                                             const kvsift_view *keys, const kvsift_view *values) {
  if (!is_store(handle)) return KVSIFT_INVALID_ARGUMENT;
  Store *store = store_of(handle);
  if (kvsift_status s = check_store_layer(store, layer)) return s;
  const uint32_t have = store->layers[layer].tokens;
  if (kvsift_status s = check_append(&store->error, layer, have, store->g.max_tokens, first_token, tokens)) return s;
  if (tokens == 0) return KVSIFT_OK;
  if (kvsift_status s = check_rows(&store->error, store->g, "keys", keys)) return s;
  if (kvsift_status s = check_rows(&store->error, store->g, "values", values)) return s;
  return append(store, layer, tokens, *keys, *values);
}

extern "C" kvsift_status kvsift_store_prefetch(kvsift_store *handle, uint32_t layer, const kvsift_selection *selection,
                                               kvsift_ticket *ticket) {
  if (!is_store(handle)) return KVSIFT_INVALID_ARGUMENT;
  Store *store = store_of(handle);
  if (kvsift_status s = check_store_layer(store, layer)) return s;
  if (kvsift_status s = check_selection(&store->error, store->g, selection)) return s;
  const kvsift_ticket made = prefetch(store, layer, *selection);
  if (ticket != nullptr) *ticket = made;
  return KVSIFT_OK;
}

static kvsift_status check_ticket(Store *store, kvsift_ticket ticket) {
  if (ticket_exists(*store, ticket)) return KVSIFT_OK;
  return fail(&store->error, KVSIFT_INVALID_ARGUMENT, "ticket ", ticket, " was not given by this store");
}

extern "C" kvsift_status kvsift_store_wait(kvsift_store *handle, kvsift_ticket ticket) {
  if (!is_store(handle)) return KVSIFT_INVALID_ARGUMENT;
  if (kvsift_status s = check_ticket(store_of(handle), ticket)) return s;
  return wait_ticket(store_of(handle), ticket);
}

extern "C" kvsift_status kvsift_store_poll(kvsift_store *handle, kvsift_ticket ticket, uint32_t *done) {
  if (!is_store(handle)) return KVSIFT_INVALID_ARGUMENT;
  Store *store = store_of(handle);
  if (kvsift_status s = check_ticket(store, ticket)) return s;
  if (done == nullptr) return fail(&store->error, KVSIFT_INVALID_ARGUMENT, "done is null");
  *done = ticket_done(*store, ticket) ? 1 : 0;
  return KVSIFT_OK;
}

extern "C" kvsift_status kvsift_store_resolve(kvsift_store *handle, uint32_t layer, kvsift_selection *selection,
                                              kvsift_cache *cache) {
  if (!is_store(handle)) return KVSIFT_INVALID_ARGUMENT;
  Store *store = store_of(handle);
  if (kvsift_status s = check_store_layer(store, layer)) return s;
  if (kvsift_status s = check_selection(&store->error, store->g, selection)) return s;
  if (kvsift_status s = check_size(&store->error, "cache", cache)) return s;
  if (kvsift_status s = check_no_coreset(&store->error, *selection)) return s;
  if (selection->tokens > store->layers[layer].tokens) {
    return fail(&store->error, KVSIFT_OUT_OF_ORDER, "resolve: the selection is for ", selection->tokens,
                " tokens, layer ", layer, " has ", store->layers[layer].tokens, ": append comes first");
  }
  bool missing = false;
  if (kvsift_status s = fetch_selection(store, layer, *selection, true, &missing)) return s;
  if (missing) {
    std::uint64_t *dropped = &store->counts.dropped;
    if (kvsift_status s = reduce(store->g, store->table(layer), store->reduced, selection, dropped, &store->error)) return s;
  }
  describe_cache(*store, layer, cache);
  return KVSIFT_OK;
}

extern "C" kvsift_status kvsift_store_read(kvsift_store *handle, uint32_t layer, uint32_t kv_head, uint32_t first_token,
                                           uint32_t tokens, void *keys, void *values, float *key_scales,
                                           float *value_scales) {
  if (!is_store(handle)) return KVSIFT_INVALID_ARGUMENT;
  Store *store = store_of(handle);
  if (kvsift_status s = check_store_layer(store, layer)) return s;
  if (kv_head >= store->g.kv_heads) {
    return fail(&store->error, KVSIFT_INVALID_ARGUMENT, "kv_head is ", kv_head, ", the store has ", store->g.kv_heads);
  }
  const uint32_t have = store->layers[layer].tokens;
  if (first_token > have || tokens > have - first_token) {
    return fail(&store->error, KVSIFT_INVALID_ARGUMENT, "read: tokens [", first_token, ", ",
                std::uint64_t{first_token} + tokens, ") go beyond the ", have, " of layer ", layer);
  }
  const bool scales = store->g.storage != KVSIFT_I8 || (key_scales != nullptr && value_scales != nullptr);
  if (tokens > 0 && (keys == nullptr || values == nullptr || !scales)) {
    return fail(&store->error, KVSIFT_INVALID_ARGUMENT, "read: keys, values or their scales are null");
  }
  return read_tokens(store, layer, kv_head, first_token, tokens, keys, values, key_scales, value_scales);
}

extern "C" kvsift_status kvsift_store_truncate(kvsift_store *handle, uint32_t tokens) {
  if (!is_store(handle)) return KVSIFT_INVALID_ARGUMENT;
  return truncate(store_of(handle), tokens);
}
