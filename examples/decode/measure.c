#include "measure.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "memory.h"
#include "plain_attention.h"

bool measure_create(measure *out, const model *m, uint32_t capacity, failure *why) {
  *out = (measure){.layers = m->layers, .head_floats = 2 * (uint64_t)capacity};
  out->layer = memory_take(m->layers, sizeof *out->layer);
  out->weights = memory_take(m->query_heads * out->head_floats, sizeof(float));
  if (out->layer != NULL && out->weights != NULL) return true;
  measure_release(out);
  return fail(why, "no memory to measure attention over %u tokens", capacity);
}

void measure_release(measure *out) {
  memory_give(out->layer);
  memory_give(out->weights);
  memset(out, 0, sizeof *out);
}

typedef struct heard_step {
  measure *with;
  const attention_input *input;
  const kvsift_selection *selection;
  const float *out;
  layer_quality *heads; /* [query heads] */
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
  uint32_t dim = in->model->head_dim, kv_head = head / (in->model->query_heads / in->model->kv_heads);
  uint32_t list = s->per_query_head ? head : kv_head, kept = 0;
  float *weights = step->with->weights + head * step->with->head_floats;
  float full[KVSIFT_MAX_HEAD_DIM];
  layer_quality *q = &step->heads[head];
  plain_weights(in->cache, in->layer, kv_head, in->queries + (uint64_t)head * dim, in->tokens,
                weights);
  plain_mix(in->cache, in->layer, kv_head, weights, in->tokens, full);
  *q = (layer_quality){.count = 1};
  for (uint32_t i = 0; i < s->range_counts[list]; i++) {
    kvsift_range range = s->ranges[(uint64_t)list * s->range_stride + i];
    for (uint32_t t = range.begin; t < range.end; t++) q->recovery += weights[t];
    kept += range.end - range.begin;
  }
  q->kept = (double)kept / in->tokens;
  q->error = relative_error(step->out + (uint64_t)head * dim, full, dim);
  q->ceiling = best_blocks(weights, in->tokens, s->block_tokens, kept, weights + in->cache->capacity);
}

static void judge_part(void *context, uint32_t part, uint32_t parts) {
  const heard_step *step = context;
  for (uint32_t h = part; h < step->input->model->query_heads; h += parts) judge_head(step, h);
}

static void add(layer_quality *to, const layer_quality *more) {
  to->count += more->count;
  to->recovery += more->recovery;
  to->ceiling += more->ceiling;
  to->error += more->error;
  to->kept += more->kept;
}

static void heard(void *self, const attention_input *input, const kvsift_selection *selection,
                  const float *out) {
  measure *with = self;
  layer_quality heads[1024]; /* the most that a model may have */
  heard_step step = {with, input, selection, out, heads};
  if (selection->everything) return;
  workers_run(input->pool, judge_part, &step);
  for (uint32_t h = 0; h < input->model->query_heads; h++) {
    add(&with->layer[input->layer], &heads[h]);
  }
}

sift_listener measure_listener(measure *with) { return (sift_listener){with, heard}; }

layer_quality measure_total(const measure *of) {
  layer_quality total = {0};
  for (uint32_t i = 0; i < of->layers; i++) add(&total, &of->layer[i]);
  return total;
}
