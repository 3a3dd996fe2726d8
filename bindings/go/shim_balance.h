// BalanceKV, for Go: see shim.h.
#ifndef KVSIFT_GO_SHIM_BALANCE_H
#define KVSIFT_GO_SHIM_BALANCE_H

#include "shim.h"

typedef struct go_balance {
  void *scratch;
  uint64_t bytes;
  kvsift_query query;
  kvsift_cache cache;
  kvsift_balance_stats stats;
  kvsift_error error;
  uint32_t count; // of the last compress
} go_balance;

static inline void go_balance_free(go_balance *b) {
  if (b == NULL) return;
  free(b->scratch);
  free(b);
}

static inline kvsift_status go_balance_new(const kvsift_balance_config *config, uint32_t tokens, kvsift_error *error,
                                           go_balance **made) {
  kvsift_balance_config c = *config;
  c.error = error;
  uint64_t bytes;
  const kvsift_status status = kvsift_balance_scratch_size(&c, tokens, &bytes);
  if (status != KVSIFT_OK) return status;
  go_balance *b = calloc(1, sizeof *b);
  if (b != NULL) b->scratch = go_arena(bytes, kvsift_arena_alignment());
  if (b == NULL || b->scratch == NULL) {
    go_balance_free(b);
    return KVSIFT_ARENA_TOO_SMALL;
  }
  b->bytes = bytes;
  b->query.struct_size = sizeof b->query;
  b->cache.struct_size = sizeof b->cache;
  b->stats.struct_size = sizeof b->stats;
  *made = b;
  return KVSIFT_OK;
}

static inline kvsift_status go_balance_compress(go_balance *b, const kvsift_balance_config *config,
                                                const float *uniforms, uint64_t uniform_count, const float *importance,
                                                const uint8_t *keys,
                                                const float *key_scales, const uint8_t *values,
                                                const float *value_scales, const int32_t *table, uint32_t head,
                                                uint32_t begin, uint32_t end, uint32_t *index, float *weight,
                                                uint32_t capacity) {
  kvsift_balance_config c = *config;
  c.error = &b->error;
  c.uniforms = uniforms;
  c.uniform_count = uniform_count;
  c.importance = importance;
  const kvsift_cache cache = go_cache(&b->cache, keys, key_scales, values, value_scales, table);
  const kvsift_range range = {begin, end};
  return kvsift_balance_compress(&c, &cache, head, range, b->scratch, b->bytes, index, weight, capacity,
                                 &b->count, &b->stats);
}

static inline kvsift_status go_balance_importance(go_balance *b, uint32_t head_dim, float scale, uint32_t group,
                                                  const uint8_t *queries, const float *query_scales,
                                                  const uint8_t *keys, const float *key_scales, const uint8_t *values,
                                                  const float *value_scales, const int32_t *table, float *row,
                                                  float *importance) {
  kvsift_query query = b->query;
  query.view = go_view(&b->query.view, queries, query_scales);
  const kvsift_cache cache = go_cache(&b->cache, keys, key_scales, values, value_scales, table);
  return kvsift_balance_importance(head_dim, scale, &query, group, &cache, row, importance, &b->error);
}

static inline kvsift_status go_balance_attend(go_balance *b, uint32_t head_dim, float scale, const float *query,
                                              const uint8_t *keys, const float *key_scales, const uint8_t *values,
                                              const float *value_scales, const int32_t *table, uint32_t head,
                                              const uint32_t *index, const float *weight, uint32_t count,
                                              const uint32_t *below_index, const float *below_weight,
                                              uint32_t below_count, float *out) {
  const kvsift_cache cache = go_cache(&b->cache, keys, key_scales, values, value_scales, table);
  const kvsift_weighted above = {index, weight, count, 0}, below = {below_index, below_weight, below_count, 0};
  return kvsift_balance_attend(head_dim, scale, query, &cache, head, &above, below_index == NULL ? NULL : &below, out,
                               &b->error);
}

typedef struct go_stream {
  kvsift_balance_stream *handle;
  void *arena;
  uint64_t bytes;
  kvsift_view keys, values;
  kvsift_balance_stream_view view;
  kvsift_balance_stats stats;
  uint32_t tokens, rows, most;
  uint64_t count;
  kvsift_error error;
} go_stream;

static inline void go_stream_free(go_stream *s) {
  if (s == NULL) return;
  free(s->arena);
  free(s);
}

static inline go_stream *go_stream_alloc(uint64_t bytes) {
  go_stream *s = calloc(1, sizeof *s);
  if (s == NULL) return NULL;
  s->bytes = bytes;
  s->view.struct_size = sizeof s->view;
  s->arena = go_arena(bytes, kvsift_arena_alignment());
  if (s->arena != NULL) return s;
  free(s);
  return NULL;
}

static inline kvsift_status go_stream_new(const kvsift_balance_stream_config *config, kvsift_error *error,
                                          go_stream **made) {
  kvsift_balance_stream_config c = *config;
  c.balance.error = error;
  uint64_t bytes;
  kvsift_status status = kvsift_balance_stream_arena_size(&c, &bytes);
  if (status != KVSIFT_OK) return status;
  go_stream *s = go_stream_alloc(bytes);
  if (s == NULL) return KVSIFT_ARENA_TOO_SMALL;
  status = kvsift_balance_stream_create(&c, s->arena, bytes, &s->handle);
  if (status == KVSIFT_OK) *made = s;
  else go_stream_free(s);
  return status;
}

static inline kvsift_status go_stream_fork(go_stream *s, go_stream **made) {
  go_stream *copy = go_stream_alloc(s->bytes);
  if (copy == NULL) return KVSIFT_ARENA_TOO_SMALL;
  const kvsift_status status = kvsift_balance_stream_fork(s->handle, copy->arena, copy->bytes, &copy->handle);
  if (status == KVSIFT_OK) *made = copy;
  else go_stream_free(copy);
  return status;
}

static inline kvsift_status go_stream_push(go_stream *s, const uint8_t *keys, const float *key_scales,
                                           const uint8_t *values, const float *value_scales, uint32_t head,
                                           uint32_t tokens) {
  const kvsift_view k = go_view(&s->keys, keys, key_scales), v = go_view(&s->values, values, value_scales);
  return kvsift_balance_stream_push(s->handle, &k, &v, head, tokens);
}

static inline kvsift_status go_stream_read(go_stream *s) { return kvsift_balance_stream_read(s->handle, &s->view); }
static inline kvsift_status go_stream_attend(go_stream *s, uint32_t head_dim, float scale, const float *query,
                                             float *out) {
  kvsift_status status = go_stream_read(s);
  if (status != KVSIFT_OK) return status;
  const kvsift_balance_stream_view *v = &s->view;
  return kvsift_balance_attend(head_dim, scale, query, &v->cache, 0, &v->numerator, &v->denominator, out, &s->error);
}
static inline kvsift_status go_stream_truncate(go_stream *s, uint32_t tokens) {
  return kvsift_balance_stream_truncate(s->handle, tokens);
}
static inline kvsift_status go_stream_count(go_stream *s) {
  return kvsift_balance_stream_count(s->handle, &s->tokens, &s->rows, &s->most);
}
static inline kvsift_status go_stream_stats(go_stream *s) {
  s->stats.struct_size = sizeof s->stats;
  return kvsift_balance_stream_stats(s->handle, &s->stats);
}
static inline kvsift_status go_stream_snapshot_size(go_stream *s) {
  return kvsift_balance_stream_snapshot_size(s->handle, &s->count);
}
static inline kvsift_status go_stream_snapshot_save(go_stream *s, uint8_t *buffer, uint64_t bytes) {
  return kvsift_balance_stream_snapshot_save(s->handle, buffer, bytes, &s->count);
}
static inline kvsift_status go_stream_snapshot_load(go_stream *s, const uint8_t *buffer, uint64_t bytes) {
  return kvsift_balance_stream_snapshot_load(s->handle, buffer, bytes);
}

#endif
