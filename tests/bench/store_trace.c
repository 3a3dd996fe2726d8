#include "store_trace.h"

#include <stdio.h>
#include <stdlib.h>

void trace_must(int condition, const char *what) {
  if (condition) return;
  fprintf(stderr, "%s\n", what);
  exit(1);
}

int trace_load(trace *t, const char *folder, int layer) {
  char path[1024];
  npy_array *parts[3] = {&t->q, &t->k, &t->v};
  for (int part = 0; part < 3; ++part) {
    snprintf(path, sizeof path, "%s/layer%02d_%c.npy", folder, layer, "qkv"[part]);
    if (npy_load(path, parts[part]) != 0) return -1;
  }
  t->tokens = (uint32_t)t->k.shape[0];
  t->steps = (uint32_t)t->q.shape[0] - TRACE_HISTORY;
  t->prompt = t->tokens - t->steps;
  return 0;
}

void trace_free(trace *t) {
  npy_free(&t->q);
  npy_free(&t->k);
  npy_free(&t->v);
}

kvsift_view trace_rows(const npy_array *a, uint32_t heads, uint32_t row) {
  const kvsift_view view = {.data = (const uint16_t *)a->data + (size_t)row * heads * TRACE_DIM, .type = KVSIFT_F16,
                            .token_stride = heads * TRACE_DIM * 2, .head_stride = TRACE_DIM * 2};
  return view;
}

kvsift_cache trace_cache(const trace *t, uint32_t tokens) {
  const kvsift_cache cache = {.struct_size = sizeof cache, .tokens = tokens, .keys = trace_rows(&t->k, TRACE_HEADS, 0),
                              .values = trace_rows(&t->v, TRACE_HEADS, 0)};
  return cache;
}

kvsift_query trace_query(const trace *t, uint32_t step) {
  const kvsift_query query = {.struct_size = sizeof query, .tokens = t->prompt + step + 1, .rows = 1,
                              .view = trace_rows(&t->q, TRACE_QUERIES, TRACE_HISTORY + step)};
  return query;
}

static void run_prompt(const trace *t, kvsift_policy *policy) {
  const kvsift_cache cache = trace_cache(t, t->prompt);
  kvsift_query query = {.struct_size = sizeof query, .tokens = t->prompt, .rows = TRACE_HISTORY,
                        .view = trace_rows(&t->q, TRACE_QUERIES, 0)};
  float *out = (float *)malloc(sizeof(float) * TRACE_HISTORY * TRACE_QUERIES * TRACE_DIM);
  trace_must(kvsift_observe_keys(policy, 0, NULL, 0, t->prompt, &cache.keys, &cache.values) == KVSIFT_OK &&
             kvsift_prefill_attend(policy, 0, &query, &cache, out) == KVSIFT_OK &&
             kvsift_advance(policy, t->prompt) == KVSIFT_OK, kvsift_last_error(policy));
  free(out);
}

kvsift_policy *trace_start(const trace *t, trace_policy choice, void **arena) {
  kvsift_error error = {0};
  kvsift_policy *policy = NULL;
  uint64_t bytes = 0;
  kvsift_policy_config c = {.struct_size = sizeof c};
  trace_must(kvsift_policy_config_init(&c, choice.method) == KVSIFT_OK, "config");
  c.dense_tokens = KVSIFT_DENSE_OFF;
  c.layers = 1, c.query_heads = TRACE_QUERIES, c.kv_heads = TRACE_HEADS, c.head_dim = TRACE_DIM, c.max_tokens = t->tokens;
  c.budget_tokens = choice.budget, c.sink_tokens = TRACE_SINK, c.local_tokens = TRACE_LOCAL, c.dense_layers = 0;
  c.grouping = KVSIFT_GROUP_MEAN, c.verify_blocks = choice.verify, c.tail = choice.tail, c.error = &error;
  c.calibration_period = 0;
  trace_must(kvsift_policy_arena_size(&c, &bytes, NULL) == KVSIFT_OK, error.message);
  *arena = aligned_alloc(KVSIFT_ARENA_ALIGNMENT, (size_t)bytes);
  trace_must(kvsift_policy_create(&c, *arena, bytes, &policy) == KVSIFT_OK, error.message);
  run_prompt(t, policy);
  return policy;
}
