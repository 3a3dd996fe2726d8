// The store, for Go: see shim.h.
#ifndef KVSIFT_GO_SHIM_STORE_H
#define KVSIFT_GO_SHIM_STORE_H

#include "shim.h"

typedef struct go_store {
  kvsift_store *handle;
  void *arena, *host;
  kvsift_view keys, values;
  kvsift_cache *caches; // one for each layer
  // Answers, so that Go needs no memory for them.
  kvsift_store_info info;
  kvsift_store_stats stats;
  uint64_t ticket;
  uint32_t count;
} go_store;

static inline void go_store_free(go_store *s) {
  free(s->arena);
  free(s->host);
  free(s->caches);
  free(s);
}

static inline kvsift_status go_store_fill(kvsift_store_config *c, int fresh, go_store *s) {
  uint64_t bytes, alignment, slow;
  kvsift_status status = kvsift_store_arena_size(c, &bytes, &alignment);
  if (status != KVSIFT_OK) return status;
  s->arena = go_arena(bytes, alignment);
  s->caches = calloc(c->layers, sizeof *s->caches);
  if (s->arena == NULL || s->caches == NULL) return KVSIFT_ARENA_TOO_SMALL;
  for (uint32_t i = 0; i < c->layers; i++) s->caches[i].struct_size = sizeof s->caches[i];
  if (c->backend == KVSIFT_STORE_HOST) {
    status = kvsift_store_slow_size(c, &slow);
    if (status != KVSIFT_OK) return status;
    s->host = go_arena(slow, c->alignment);
    if (s->host == NULL) return KVSIFT_ARENA_TOO_SMALL;
    c->host_memory = s->host;
    c->host_bytes = slow;
  }
  return fresh ? kvsift_store_create(c, s->arena, bytes, &s->handle) : kvsift_store_open(c, s->arena, bytes, &s->handle);
}

// device.go
extern int64_t kvsiftGoRead(uintptr_t device, uint64_t offset, kvsift_store_span *spans, uint32_t count);
extern int64_t kvsiftGoWrite(uintptr_t device, uint64_t offset, kvsift_store_span *spans, uint32_t count);
extern int32_t kvsiftGoSync(uintptr_t device);

static inline int64_t go_device_read(void *device, uint64_t offset, const kvsift_store_span *spans, uint32_t count) {
  return kvsiftGoRead((uintptr_t)device, offset, (kvsift_store_span *)spans, count);
}
static inline int64_t go_device_write(void *device, uint64_t offset, const kvsift_store_span *spans, uint32_t count) {
  return kvsiftGoWrite((uintptr_t)device, offset, (kvsift_store_span *)spans, count);
}
static inline int32_t go_device_sync(void *device) { return kvsiftGoSync((uintptr_t)device); }

static inline kvsift_status go_store_make(const kvsift_store_config *config, const char *path, uintptr_t device,
                                          int fresh, kvsift_error *error, go_store **made) {
  const kvsift_store_device own = {(void *)device, go_device_read, go_device_write, go_device_sync};
  kvsift_store_config c = *config;
  c.path = path;
  c.device = &own;
  c.error = error;
  go_store *s = calloc(1, sizeof *s);
  if (s == NULL) return KVSIFT_ARENA_TOO_SMALL;
  const kvsift_status status = go_store_fill(&c, fresh, s);
  if (status == KVSIFT_OK) *made = s;
  else go_store_free(s);
  return status;
}

static inline kvsift_status go_store_append(go_store *s, uint32_t layer, uint32_t first, uint32_t tokens,
                                            const uint8_t *keys, const float *key_scales, const uint8_t *values,
                                            const float *value_scales) {
  const kvsift_view k = go_view(&s->keys, keys, key_scales), v = go_view(&s->values, values, value_scales);
  return kvsift_store_append(s->handle, layer, first, tokens, &k, &v);
}

static inline kvsift_status go_store_resolve(go_store *s, uint32_t layer, go_policy *p) {
  return kvsift_store_resolve(s->handle, layer, &p->selection, &s->caches[layer]);
}
static inline kvsift_status go_store_prefetch(go_store *s, uint32_t layer, go_policy *p) {
  return kvsift_store_prefetch(s->handle, layer, &p->selection, &s->ticket);
}
static inline kvsift_status go_store_read(go_store *s, uint32_t layer, uint32_t head, uint32_t first, uint32_t tokens,
                                          uint8_t *keys, uint8_t *values, float *key_scales, float *value_scales) {
  return kvsift_store_read(s->handle, layer, head, first, tokens, keys, values, key_scales, value_scales);
}
static inline kvsift_status go_store_trace(go_store *s, kvsift_store_event *events, uint32_t capacity) {
  return kvsift_store_read_trace(s->handle, events, capacity, &s->count);
}
static inline kvsift_status go_store_close(go_store *s) {
  const kvsift_status status = kvsift_store_close(s->handle);
  go_store_free(s);
  return status;
}
static inline kvsift_status go_store_wait(go_store *s, uint64_t ticket) { return kvsift_store_wait(s->handle, ticket); }
static inline kvsift_status go_store_poll(go_store *s, uint64_t ticket) {
  return kvsift_store_poll(s->handle, ticket, &s->count);
}
static inline kvsift_status go_store_truncate(go_store *s, uint32_t tokens) {
  return kvsift_store_truncate(s->handle, tokens);
}
static inline uint32_t go_store_layer_tokens(const go_store *s, uint32_t layer) {
  return kvsift_store_layer_tokens(s->handle, layer);
}
static inline kvsift_status go_store_flush(go_store *s) { return kvsift_store_flush(s->handle); }
static inline kvsift_status go_store_info(go_store *s) {
  s->info.struct_size = sizeof s->info;
  return kvsift_store_get_info(s->handle, &s->info);
}
static inline kvsift_status go_store_stats(go_store *s) {
  s->stats.struct_size = sizeof s->stats;
  return kvsift_store_get_stats(s->handle, &s->stats);
}

#endif
