#include "plain_attention.h"

#include <math.h>
#include <string.h>

#include "memory.h"

void plain_weights(const cache *from, uint32_t layer, uint32_t kv_head, const float *query,
                   uint32_t tokens, float *weights) {
  float key[KVSIFT_MAX_HEAD_DIM], scale = 1 / sqrtf((float)from->head_dim), largest = -INFINITY;
  double total = 0;
  for (uint32_t t = 0; t < tokens; t++) {
    float logit = 0;
    cache_read_key(from, layer, kv_head, t, key);
    for (uint32_t i = 0; i < from->head_dim; i++) logit += query[i] * key[i];
    weights[t] = logit * scale;
    largest = fmaxf(largest, weights[t]);
  }
  for (uint32_t t = 0; t < tokens; t++) total += weights[t] = expf(weights[t] - largest);
  for (uint32_t t = 0; t < tokens; t++) weights[t] = (float)(weights[t] / total);
}

void plain_mix(const cache *from, uint32_t layer, uint32_t kv_head, const float *weights,
               uint32_t tokens, float *out) {
  float value[KVSIFT_MAX_HEAD_DIM];
  memset(out, 0, from->head_dim * sizeof *out);
  for (uint32_t t = 0; t < tokens; t++) {
    if (weights[t] == 0) continue;
    cache_read_value(from, layer, kv_head, t, value);
    for (uint32_t i = 0; i < from->head_dim; i++) out[i] += weights[t] * value[i];
  }
}

typedef struct plain_work {
  const attention_input *input;
  float *out;
  float *weights; /* [parts][capacity] */
} plain_work;

static void attend_part(void *context, uint32_t part, uint32_t parts) {
  const plain_work *work = context;
  const attention_input *in = work->input;
  const model *m = in->model;
  float *weights = work->weights + (uint64_t)part * in->cache->capacity;
  uint32_t group = m->query_heads / m->kv_heads;
  for (uint32_t i = part; i < in->rows * m->query_heads; i += parts) {
    uint32_t row = i / m->query_heads, head = i % m->query_heads;
    uint32_t tokens = in->tokens - in->rows + row + 1;
    uint64_t at = (uint64_t)i * m->head_dim;
    plain_weights(in->cache, in->layer, head / group, in->queries + at, tokens, weights);
    plain_mix(in->cache, in->layer, head / group, weights, tokens, work->out + at);
  }
}

static bool attend(void *self, const attention_input *input, float *out, failure *why) {
  (void)self;
  uint64_t floats = (uint64_t)workers_count(input->pool) * input->cache->capacity;
  plain_work work = {input, out, memory_take(floats, sizeof(float))};
  if (work.weights == NULL) return fail(why, "no memory for %u attention weights", input->tokens);
  workers_run(input->pool, attend_part, &work);
  memory_give(work.weights);
  return true;
}

static bool advance(void *self, uint32_t tokens, failure *why) {
  (void)self, (void)tokens, (void)why;
  return true;
}

attention plain_attention(void) { return (attention){NULL, attend, advance}; }
