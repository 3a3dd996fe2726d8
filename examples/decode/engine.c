#include "engine.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "memory.h"

bool engine_create(engine *out, const model *m, workers *pool, kvsift_type cache_type,
                   uint32_t capacity, failure *why) {
  *out = (engine){.model = m, .pool = pool};
  uint32_t queries = m->query_heads * m->head_dim, keys = m->kv_heads * m->head_dim;
  uint32_t widest = m->width > m->hidden ? m->width : m->hidden;
  if (queries > widest) widest = queries;
  const struct {
    float **at;
    uint64_t count;
  } buffers[] = {{&out->state, (uint64_t)ENGINE_BATCH * m->width},
                 {&out->normed, (uint64_t)ENGINE_BATCH * m->width},
                 {&out->queries, (uint64_t)ENGINE_BATCH * queries},
                 {&out->keys, (uint64_t)ENGINE_BATCH * keys},
                 {&out->values, (uint64_t)ENGINE_BATCH * keys},
                 {&out->mixed, (uint64_t)ENGINE_BATCH * queries},
                 {&out->gate, (uint64_t)ENGINE_BATCH * m->hidden},
                 {&out->up, (uint64_t)ENGINE_BATCH * m->hidden},
                 {&out->logits, m->vocabulary},
                 {&out->scratch, multiply_scratch(pool, widest)}};
  bool done = cache_create(&out->cache, m, cache_type, capacity, why);
  for (uint32_t i = 0; i < sizeof buffers / sizeof *buffers && done; i++) {
    *buffers[i].at = memory_take(buffers[i].count, sizeof(float));
    done = *buffers[i].at != NULL;
    if (!done) fail(why, "no memory for %" PRIu64 " floats of the engine", buffers[i].count);
  }
  if (!done) engine_release(out);
  return done;
}

void engine_release(engine *out) {
  float *buffers[] = {out->state, out->normed, out->queries, out->keys,   out->values,
                      out->mixed, out->gate,   out->up,      out->logits, out->scratch};
  for (uint32_t i = 0; i < sizeof buffers / sizeof *buffers; i++) memory_give(buffers[i]);
  cache_release(&out->cache);
  memset(out, 0, sizeof *out);
}

void engine_truncate(engine *e, uint32_t tokens) {
  if (tokens < e->cache.tokens) e->cache.tokens = tokens;
}

static bool compute(engine *e, const product *products, uint32_t count, const float *input,
                    uint32_t inputs, failure *why) {
  const multiplier *other = &e->multiplier;
  if (other->multiply != NULL) {
    return other->multiply(other->self, products, count, input, inputs, why);
  }
  multiply(e->pool, products, count, input, inputs, e->scratch);
  return true;
}

/* Work on single rows of a batch, shared out where there is more than one. */
typedef struct row_work {
  engine *engine;
  const float *gain;
  uint32_t layer, rows;
  void (*row)(const struct row_work *work, uint32_t row);
} row_work;

static void rows_part(void *context, uint32_t part, uint32_t parts) {
  const row_work *work = context;
  uint32_t end = (uint32_t)((uint64_t)work->rows * (part + 1) / parts);
  for (uint32_t i = (uint32_t)((uint64_t)work->rows * part / parts); i < end; i++) {
    work->row(work, i);
  }
}

static void each_row(row_work work) {
  if (work.rows == 1) {
    work.row(&work, 0);
  } else {
    workers_run(work.engine->pool, rows_part, &work);
  }
}

static void normalise_row(const row_work *work, uint32_t row) {
  const model *m = work->engine->model;
  const float *in = work->engine->state + (uint64_t)row * m->width;
  float *out = work->engine->normed + (uint64_t)row * m->width;
  double squares = 0;
  for (uint32_t i = 0; i < m->width; i++) squares += (double)in[i] * in[i];
  float scale = 1 / sqrtf((float)(squares / m->width) + m->norm_epsilon);
  for (uint32_t i = 0; i < m->width; i++) out[i] = in[i] * scale * work->gain[i];
}

static void rotate(const model *m, float *head, uint32_t position) {
  for (uint32_t i = 0; i < m->rope_dim / 2; i++) {
    float angle = (float)position * m->rope_rates[i];
    float c = cosf(angle), s = sinf(angle), a = head[2 * i], b = head[2 * i + 1];
    head[2 * i] = a * c - b * s;
    head[2 * i + 1] = a * s + b * c;
  }
}

static void rotate_and_store_row(const row_work *work, uint32_t row) {
  engine *e = work->engine;
  const model *m = e->model;
  uint32_t position = e->cache.tokens + row;
  for (uint32_t h = 0; h < m->query_heads; h++) {
    rotate(m, e->queries + ((uint64_t)row * m->query_heads + h) * m->head_dim, position);
  }
  for (uint32_t h = 0; h < m->kv_heads; h++) {
    uint64_t at = ((uint64_t)row * m->kv_heads + h) * m->head_dim;
    rotate(m, e->keys + at, position);
    cache_write(&e->cache, work->layer, h, position, e->keys + at, e->values + at);
  }
}

static void gate_row(const row_work *work, uint32_t row) {
  uint32_t hidden = work->engine->model->hidden;
  float *gate = work->engine->gate + (uint64_t)row * hidden;
  const float *up = work->engine->up + (uint64_t)row * hidden;
  for (uint32_t i = 0; i < hidden; i++) gate[i] = gate[i] / (1 + expf(-gate[i])) * up[i];
}

static void add_row(const row_work *work, uint32_t row) {
  uint32_t width = work->engine->model->width;
  float *state = work->engine->state + (uint64_t)row * width;
  const float *change = work->engine->normed + (uint64_t)row * width;
  for (uint32_t i = 0; i < width; i++) state[i] += change[i];
}

static bool feed_forward(engine *e, uint32_t layer, uint32_t rows, failure *why) {
  const model_layer *weights = &e->model->layer[layer];
  each_row((row_work){e, weights->feed_norm, layer, rows, normalise_row});
  product in[] = {{&weights->gate, NULL, e->gate}, {&weights->up, NULL, e->up}};
  if (!compute(e, in, 2, e->normed, rows, why)) return false;
  each_row((row_work){e, NULL, layer, rows, gate_row});
  product out = {&weights->down, NULL, e->normed};
  if (!compute(e, &out, 1, e->gate, rows, why)) return false;
  each_row((row_work){e, NULL, layer, rows, add_row});
  return true;
}

static bool attention_block(engine *e, attention_input input, failure *why) {
  uint32_t layer = input.layer, rows = input.rows;
  const model_layer *weights = &e->model->layer[layer];
  each_row((row_work){e, weights->attention_norm, layer, rows, normalise_row});
  product in[] = {{&weights->query, weights->query_bias, e->queries},
                  {&weights->key, weights->key_bias, e->keys},
                  {&weights->value, weights->value_bias, e->values}};
  if (!compute(e, in, 3, e->normed, rows, why)) return false;
  each_row((row_work){e, NULL, layer, rows, rotate_and_store_row});
  if (!e->attention.attend(e->attention.self, &input, e->mixed, why)) return false;
  product out = {&weights->output, weights->output_bias, e->normed};
  if (!compute(e, &out, 1, e->mixed, rows, why)) return false;
  each_row((row_work){e, NULL, layer, rows, add_row});
  return true;
}

static bool unembed_last(engine *e, uint32_t rows, failure *why) {
  const model *m = e->model;
  memmove(e->state, e->state + (uint64_t)(rows - 1) * m->width, m->width * sizeof(float));
  each_row((row_work){e, m->final_norm, 0, 1, normalise_row});
  product out = {&m->unembedding, NULL, e->logits};
  return compute(e, &out, 1, e->normed, 1, why);
}

static bool embed(engine *e, const uint32_t *tokens, uint32_t count, failure *why) {
  const model *m = e->model;
  if (count < 1 || count > ENGINE_BATCH || count > e->cache.capacity - e->cache.tokens) {
    return fail(why, "%" PRIu32 " tokens do not fit: the cache holds %" PRIu32 " of %" PRIu32,
                count, e->cache.tokens, e->cache.capacity);
  }
  for (uint32_t i = 0; i < count; i++) {
    if (tokens[i] >= m->vocabulary) {
      return fail(why, "token %" PRIu32 " is not below the vocabulary's %" PRIu32, tokens[i],
                  m->vocabulary);
    }
    expand_matrix_row(&m->embedding, tokens[i], e->state + (uint64_t)i * m->width);
  }
  return true;
}

static bool forward(engine *e, const uint32_t *tokens, attention_input input, failure *why) {
  uint32_t count = input.rows;
  if (!embed(e, tokens, count, why)) return false;
  input.model = e->model;
  input.cache = &e->cache;
  input.pool = e->pool;
  input.tokens = e->cache.tokens + count;
  input.queries = e->queries;
  for (input.layer = 0; input.layer < e->model->layers; input.layer++) {
    if (!attention_block(e, input, why) || !feed_forward(e, input.layer, count, why)) return false;
  }
  if (!e->attention.advance(e->attention.self, count, why)) return false;
  e->cache.tokens += count;
  return unembed_last(e, count, why);
}

uint32_t engine_first_batch(uint32_t prompt_tokens) {
  uint32_t rest = prompt_tokens % ENGINE_BATCH;
  return rest > 0 || prompt_tokens == 0 ? rest : ENGINE_BATCH;
}

bool engine_read(engine *e, const uint32_t *tokens, uint32_t count, uint32_t left, failure *why) {
  return forward(e, tokens, (attention_input){.rows = count, .prompt = true, .prompt_left = left},
                 why);
}

bool engine_step(engine *e, uint32_t token, failure *why) {
  return forward(e, &token, (attention_input){.rows = 1}, why);
}
