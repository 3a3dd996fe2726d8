// What Go calls. Numbers are left in a block of C memory before a call, pointers to Go memory come as arguments, so that Go
// may keep its rules for them and nothing is allocated; no such pointer is kept.
#ifndef KVSIFT_GO_SHIM_H
#define KVSIFT_GO_SHIM_H

#include <stdlib.h>

#include <kvsift/kvsift.h>
#include <kvsift/balance.h>
#include <kvsift/store.h>


typedef struct go_policy {
  kvsift_policy *handle;
  void *arena;
  uint64_t bytes;
  kvsift_query query;
  kvsift_view keys, values;
  kvsift_cache cache;
  kvsift_selection selection;
  kvsift_observation observation;
  // Answers, so that Go needs no memory for them.
  kvsift_policy_info info;
  kvsift_stats stats;
  uint64_t count;
} go_policy;

static inline void *go_arena(uint64_t bytes, uint64_t alignment) {
  return aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
}

static inline go_policy *go_policy_new(void) {
  go_policy *p = calloc(1, sizeof *p);
  if (p == NULL) return NULL;
  p->query.struct_size = sizeof p->query;
  p->cache.struct_size = sizeof p->cache;
  p->selection.struct_size = sizeof p->selection;
  p->observation.struct_size = sizeof p->observation;
  p->info.struct_size = sizeof p->info;
  p->stats.struct_size = sizeof p->stats;
  return p;
}

static inline void go_policy_free(go_policy *p) {
  if (p == NULL) return;
  kvsift_policy_destroy(p->handle);
  free(p->arena);
  free(p);
}

static inline kvsift_view go_view(const kvsift_view *shape, const uint8_t *data, const float *scales) {
  kvsift_view view = *shape;
  view.data = data;
  view.scales = scales;
  return view;
}

static inline kvsift_query go_query(const go_policy *p, const uint8_t *data, const float *scales) {
  kvsift_query query = p->query;
  query.view.data = data;
  query.view.scales = scales;
  return query;
}

static inline kvsift_cache go_cache(const kvsift_cache *shape, const uint8_t *keys, const float *key_scales,
                                    const uint8_t *values, const float *value_scales, const int32_t *table) {
  kvsift_cache cache = *shape;
  cache.keys.data = keys;
  cache.keys.scales = key_scales;
  cache.values.data = values;
  cache.values.scales = value_scales;
  cache.block_table = table;
  return cache;
}

static inline kvsift_status go_arena_size(const kvsift_policy_config *config, kvsift_error *error, uint64_t *bytes,
                                          uint64_t *alignment) {
  kvsift_policy_config c = *config;
  c.error = error;
  return kvsift_policy_arena_size(&c, bytes, alignment);
}

typedef struct go_predictor {
  kvsift_predictor *weights;
  void *arena;
} go_predictor;

static inline void go_predictor_free(go_predictor *p) {
  if (p == NULL) return;
  free(p->arena);
  free(p);
}

static inline kvsift_status go_predictor_load(const uint8_t *data, uint64_t size, kvsift_error *error,
                                              go_predictor **made) {
  uint64_t bytes, alignment;
  kvsift_status status = kvsift_predictor_arena_size(&bytes, &alignment);
  if (status != KVSIFT_OK) return status;
  go_predictor *p = calloc(1, sizeof *p);
  if (p != NULL) p->arena = go_arena(bytes, alignment);
  status = p == NULL || p->arena == NULL
               ? KVSIFT_ARENA_TOO_SMALL
               : kvsift_predictor_load(data, size, p->arena, bytes, &p->weights, error);
  if (status == KVSIFT_OK) *made = p;
  else go_predictor_free(p);
  return status;
}

static inline kvsift_status go_create(const kvsift_policy_config *config, const go_predictor *predictor,
                                      kvsift_error *error, go_policy *p) {
  kvsift_policy_config c = *config;
  uint64_t alignment;
  c.predictor = predictor == NULL ? NULL : predictor->weights;
  c.error = error;
  const kvsift_status status = kvsift_policy_arena_size(&c, &p->bytes, &alignment);
  if (status != KVSIFT_OK) return status;
  p->arena = go_arena(p->bytes, alignment);
  if (p->arena == NULL) return KVSIFT_ARENA_TOO_SMALL;
  return kvsift_policy_create(&c, p->arena, p->bytes, &p->handle);
}

static inline kvsift_status go_fork(const go_policy *p, go_policy *copy) {
  copy->bytes = p->bytes;
  copy->arena = go_arena(p->bytes, kvsift_arena_alignment());
  if (copy->arena == NULL) return KVSIFT_ARENA_TOO_SMALL;
  return kvsift_fork(p->handle, copy->arena, copy->bytes, &copy->handle);
}

static inline kvsift_status go_observe_keys(go_policy *p, uint32_t layer, uint32_t first, uint32_t tokens,
                                            const uint8_t *keys, const float *key_scales, const uint8_t *values,
                                            const float *value_scales) {
  const kvsift_view k = go_view(&p->keys, keys, key_scales), v = go_view(&p->values, values, value_scales);
  return kvsift_observe_keys(p->handle, layer, &p->query, first, tokens, &k, values == NULL ? NULL : &v);
}

static inline kvsift_status go_select(go_policy *p, uint32_t layer, const uint8_t *queries, const float *scales) {
  const kvsift_query query = go_query(p, queries, scales);
  return kvsift_select_blocks(p->handle, layer, &query, &p->selection);
}

static inline kvsift_status go_attend(go_policy *p, uint32_t layer, const uint8_t *queries, const float *scales,
                                      const uint8_t *keys, const float *key_scales, const uint8_t *values,
                                      const float *value_scales, const int32_t *table, float *out, float *max,
                                      float *mass, float *log_sum_exp) {
  const kvsift_query query = go_query(p, queries, scales);
  const kvsift_cache cache = go_cache(&p->cache, keys, key_scales, values, value_scales, table);
  kvsift_observation *o = &p->observation;
  if (log_sum_exp == NULL) return kvsift_attend(p->handle, layer, &query, &cache, &p->selection, out, NULL);
  o->block_max = max;
  o->block_mass = mass;
  o->log_sum_exp = log_sum_exp;
  const kvsift_status status = kvsift_attend(p->handle, layer, &query, &cache, &p->selection, out, o);
  o->block_max = o->block_mass = o->log_sum_exp = NULL;
  return status;
}

static inline kvsift_status go_decode_attend(go_policy *p, uint32_t layer, const uint8_t *queries, const float *scales,
                                             const uint8_t *keys, const float *key_scales, const uint8_t *values,
                                             const float *value_scales, const int32_t *table, float *out) {
  const kvsift_query query = go_query(p, queries, scales);
  const kvsift_cache cache = go_cache(&p->cache, keys, key_scales, values, value_scales, table);
  return kvsift_decode_attend(p->handle, layer, &query, &cache, &p->selection, out);
}

static inline kvsift_status go_attend_tail(go_policy *p, uint32_t layer, const uint8_t *queries, const float *scales,
                                           const uint8_t *keys, const float *key_scales, const uint8_t *values,
                                           const float *value_scales, const int32_t *table, float *out,
                                           float *log_sum_exp) {
  const kvsift_query query = go_query(p, queries, scales);
  const kvsift_cache cache = go_cache(&p->cache, keys, key_scales, values, value_scales, table);
  return kvsift_attend_tail(p->handle, layer, &query, &cache, &p->selection, out, log_sum_exp);
}

static inline kvsift_status go_prefill(go_policy *p, uint32_t layer, const uint8_t *queries, const float *scales,
                                       const uint8_t *keys, const float *key_scales, const uint8_t *values,
                                       const float *value_scales, const int32_t *table, float *out) {
  const kvsift_query query = go_query(p, queries, scales);
  const kvsift_cache cache = go_cache(&p->cache, keys, key_scales, values, value_scales, table);
  return kvsift_prefill_attend(p->handle, layer, &query, &cache, out);
}

static inline kvsift_status go_observe(go_policy *p, uint32_t layer, float *max, float *mass, float *log_sum_exp,
                                       const float *rows) {
  kvsift_observation o = p->observation;
  o.block_max = max;
  o.block_mass = mass;
  o.log_sum_exp = log_sum_exp;
  o.rows = rows;
  return kvsift_observe_attention(p->handle, layer, &p->query, &o);
}

static inline kvsift_status go_advance(go_policy *p, uint32_t tokens) { return kvsift_advance(p->handle, tokens); }
static inline kvsift_status go_reset(go_policy *p) { return kvsift_policy_reset(p->handle); }
static inline kvsift_status go_truncate(go_policy *p, uint32_t tokens) { return kvsift_truncate(p->handle, tokens); }
static inline kvsift_status go_predict_next(go_policy *p, uint32_t layer) {
  return kvsift_predict_next(p->handle, layer, &p->query);
}
static inline kvsift_status go_info(go_policy *p) { return kvsift_policy_get_info(p->handle, &p->info); }
static inline kvsift_status go_stats(go_policy *p) { return kvsift_get_stats(p->handle, &p->stats); }
static inline kvsift_status go_snapshot_size(go_policy *p) { return kvsift_snapshot_size(p->handle, &p->count); }
static inline kvsift_status go_snapshot_save(go_policy *p, uint8_t *buffer, uint64_t bytes) {
  return kvsift_snapshot_save(p->handle, buffer, bytes, &p->count);
}
static inline kvsift_status go_snapshot_load(go_policy *p, const uint8_t *buffer, uint64_t bytes) {
  return kvsift_snapshot_load(p->handle, buffer, bytes);
}

#endif
