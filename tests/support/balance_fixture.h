/* A head of random keys and values with all that a compression or a stream of it needs. */
#ifndef KVSIFT_TESTS_BALANCE_FIXTURE_H
#define KVSIFT_TESTS_BALANCE_FIXTURE_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <kvsift/balance.h>

#include "random.h"

typedef struct balance_job {
  kvsift_error error;
  kvsift_balance_config config;
  kvsift_balance_stats stats;
  kvsift_cache cache;
  kvsift_range range;
  float *keys, *values;
  void *scratch;
  uint64_t scratch_bytes;
  uint32_t *index;
  float *weight;
  uint32_t capacity, count;
} balance_job;

static inline kvsift_balance_config balance_config(uint32_t form, uint32_t dim, kvsift_error *error) {
  kvsift_balance_config c = {0};
  c.struct_size = sizeof c;
  if (kvsift_balance_config_init(&c, form) != KVSIFT_OK) abort();
  c.head_dim = dim;
  c.error = error;
  return c;
}

static inline kvsift_view balance_view(const float *rows, uint32_t dim) {
  kvsift_view view = {0};
  view.data = rows;
  view.type = KVSIFT_F32;
  view.token_stride = dim * sizeof(float);
  return view;
}

/* Values in [-1, 1) but for an offset, so that attention has something to agree on. */
static inline void balance_fill(float *rows, uint64_t count, uint64_t seed, float offset) {
  test_random r = {seed};
  for (uint64_t i = 0; i < count; ++i) rows[i] = 2.0f * random_unit(&r) - 1.0f + offset;
}

/* Scratch of the right size for the job's config as it is now. */
static inline void balance_resize(balance_job *job) {
  const uint32_t tokens = job->cache.tokens;
  free(job->scratch);
  job->scratch_bytes = 0;
  if (kvsift_balance_scratch_size(&job->config, tokens, &job->scratch_bytes) != KVSIFT_OK) job->scratch_bytes = 64;
  job->scratch = aligned_alloc(KVSIFT_ARENA_ALIGNMENT, job->scratch_bytes + KVSIFT_ARENA_ALIGNMENT);
}

static inline void balance_job_init(balance_job *job, uint32_t form, uint32_t tokens, uint32_t dim, uint64_t seed) {
  memset(job, 0, sizeof *job);
  job->config = balance_config(form, dim, &job->error);
  job->stats.struct_size = sizeof job->stats;
  job->keys = malloc(sizeof(float) * tokens * dim);
  job->values = malloc(sizeof(float) * tokens * dim);
  balance_fill(job->keys, (uint64_t)tokens * dim, 2 * seed, 0.0f);
  balance_fill(job->values, (uint64_t)tokens * dim, 2 * seed + 1, 0.3f);
  job->cache.struct_size = sizeof job->cache;
  job->cache.tokens = tokens;
  job->cache.keys = balance_view(job->keys, dim);
  job->cache.values = balance_view(job->values, dim);
  job->range.end = tokens;
  job->capacity = tokens;
  job->index = malloc(sizeof(uint32_t) * tokens);
  job->weight = malloc(sizeof(float) * tokens);
  balance_resize(job);
}

static inline kvsift_status balance_run(balance_job *job) {
  return kvsift_balance_compress(&job->config, &job->cache, 0, job->range, job->scratch, job->scratch_bytes,
                                 job->index, job->weight, job->capacity, &job->count, &job->stats);
}

static inline float balance_weight_sum(const balance_job *job) {
  double sum = 0.0;
  for (uint32_t i = 0; i < job->count; ++i) sum += (double)job->weight[i];
  return (float)sum;
}

static inline void balance_job_free(balance_job *job) {
  free(job->keys);
  free(job->values);
  free(job->scratch);
  free(job->index);
  free(job->weight);
}

static inline kvsift_balance_stream_config stream_config(uint32_t form, uint32_t dim, uint32_t batch,
                                                         uint32_t max_tokens, kvsift_error *error) {
  kvsift_balance_stream_config c = {0};
  c.struct_size = sizeof c;
  if (kvsift_balance_stream_config_init(&c, form) != KVSIFT_OK) abort();
  c.balance.head_dim = dim;
  c.balance.error = error;
  c.batch_tokens = batch;
  c.max_tokens = max_tokens;
  c.row_type = KVSIFT_F32;
  return c;
}

static inline kvsift_balance_stream *stream_new(const kvsift_balance_stream_config *c, void **arena) {
  uint64_t bytes = 0;
  kvsift_balance_stream *stream = NULL;
  if (kvsift_balance_stream_arena_size(c, &bytes) != KVSIFT_OK) abort();
  *arena = aligned_alloc(KVSIFT_ARENA_ALIGNMENT, bytes);
  /* What create does not write must not matter. */
  memset(*arena, 0xa5, bytes);
  if (kvsift_balance_stream_create(c, *arena, bytes, &stream) != KVSIFT_OK) abort();
  return stream;
}

static inline uint64_t digest_bytes(const void *data, uint64_t bytes, uint64_t hash) {
  const unsigned char *p = data;
  for (uint64_t i = 0; i < bytes; ++i) hash = (hash ^ p[i]) * 0x100000001b3u;
  return hash;
}

/* Of the tokens, weights and rows that a stream holds, in its order. */
static inline uint64_t stream_digest(kvsift_balance_stream *stream) {
  kvsift_balance_stream_view view = {0};
  view.struct_size = sizeof view;
  if (kvsift_balance_stream_read(stream, &view) != KVSIFT_OK) abort();
  uint64_t hash = 0xcbf29ce484222325u;
  const kvsift_weighted *sets[2] = {&view.numerator, &view.denominator};
  for (int s = 0; s < 2; ++s) {
    for (uint32_t i = 0; i < sets[s]->count; ++i) {
      const uint32_t row = sets[s]->index[i];
      const uint64_t bytes = view.cache.keys.token_stride;
      hash = digest_bytes(&view.tokens[row], sizeof(uint32_t), hash);
      hash = digest_bytes(&sets[s]->weight[i], sizeof(float), hash);
      hash = digest_bytes((const char *)view.cache.keys.data + row * bytes, bytes, hash);
      hash = digest_bytes((const char *)view.cache.values.data + row * bytes, bytes, hash);
    }
  }
  return hash;
}

#endif
