#include "measure.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "memory.h"
#include "plain_attention.h"

bool measure_create(measure *out, const model *m, uint32_t capacity, failure *why) {
  *out = (measure){.layers = m->layers,
                   .query_heads = m->query_heads,
                   .every = 1,
                   .head_floats = 2 * (uint64_t)capacity};
  out->heads = memory_take((uint64_t)m->layers * m->query_heads, sizeof *out->heads);
  out->weights = memory_take(m->query_heads * out->head_floats, sizeof(float));
  if (out->heads != NULL && out->weights != NULL) return true;
  measure_release(out);
  return fail(why, "no memory to measure attention over %u tokens", capacity);
}

void measure_release(measure *out) {
  memory_give(out->heads);
  memory_give(out->weights);
  memset(out, 0, sizeof *out);
}

void quality_add(quality *to, const quality *more) {
  to->count += more->count;
  to->recovery += more->recovery;
  to->ceiling += more->ceiling;
  to->error += more->error;
  to->kept += more->kept;
}

typedef struct heard_step {
  measure *with;
  const attention_input *input;
  const kvsift_selection *selection;
  const float *out;
} heard_step;

static int descending(const void *a, const void *b) {
  float x = *(const float *)a, y = *(const float *)b;
  return (x < y) - (x > y);
}

/* The mass of the heaviest blocks that `kept` tokens pay for. */
static double best_blocks(const float *weights, uint32_t tokens, uint32_t block, uint32_t kept,
                          float *masses) {
  uint32_t blocks = (tokens + block - 1) / block, affordable = kept / block;
  double total = 0;
  for (uint32_t i = 0; i < blocks; i++) {
    masses[i] = 0;
    for (uint32_t t = i * block; t < tokens && t < (i + 1) * block; t++) masses[i] += weights[t];
  }
  qsort(masses, blocks, sizeof *masses, descending);
  for (uint32_t i = 0; i < blocks && i < affordable; i++) total += masses[i];
  return total;
}

static double relative_error(const float *out, const float *full, uint32_t count) {
  double difference = 0, size = 0;
  for (uint32_t i = 0; i < count; i++) {
    difference += ((double)out[i] - full[i]) * ((double)out[i] - full[i]);
    size += (double)full[i] * full[i];
  }
  return size > 0 ? sqrt(difference / size) : 0;
}

static void judge_head(const heard_step *step, uint32_t head) {
  const attention_input *in = step->input;
  const kvsift_selection *s = step->selection;
  uint32_t dim = in->model->head_dim,
           kv_head = head / (in->model->query_heads / in->model->kv_heads);
  uint32_t list = s->per_query_head ? head : kv_head, kept = 0;
  float *weights = step->with->weights + head * step->with->head_floats;
  float full[KVSIFT_MAX_HEAD_DIM];
  quality q = {.count = 1};
  plain_weights(in->cache, in->layer, kv_head, in->queries + (uint64_t)head * dim, in->tokens,
                weights);
  plain_mix(in->cache, in->layer, kv_head, weights, in->tokens, full);
  for (uint32_t i = 0; i < s->range_counts[list]; i++) {
    kvsift_range range = s->ranges[(uint64_t)list * s->range_stride + i];
    for (uint32_t t = range.begin; t < range.end; t++) q.recovery += weights[t];
    kept += range.end - range.begin;
  }
  q.kept = (double)kept / in->tokens;
  q.error = relative_error(step->out + (uint64_t)head * dim, full, dim);
  q.ceiling =
      best_blocks(weights, in->tokens, s->block_tokens, kept, weights + in->cache->capacity);
  quality_add(&step->with->heads[(uint64_t)in->layer * in->model->query_heads + head], &q);
}

static void judge_part(void *context, uint32_t part, uint32_t parts) {
  const heard_step *step = context;
  for (uint32_t h = part; h < step->input->model->query_heads; h += parts) judge_head(step, h);
}

static void heard(void *self, const attention_input *input, const kvsift_selection *selection,
                  const float *out) {
  measure *with = self;
  heard_step step = {with, input, selection, out};
  if (selection->everything || input->tokens % with->every != 0) return;
  workers_run(input->pool, judge_part, &step);
}

sift_listener measure_listener(measure *with) { return (sift_listener){with, heard}; }

quality measure_layer(const measure *of, uint32_t layer) {
  quality total = {0};
  for (uint32_t h = 0; h < of->query_heads; h++) {
    quality_add(&total, &of->heads[(uint64_t)layer * of->query_heads + h]);
  }
  return total;
}

quality measure_total(const measure *of) {
  quality total = {0};
  for (uint32_t i = 0; i < of->layers; i++) {
    quality layer = measure_layer(of, i);
    quality_add(&total, &layer);
  }
  return total;
}
