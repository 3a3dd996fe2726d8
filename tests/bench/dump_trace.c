/* Queries, keys and values of a model reading text, in the form that sweep_balance takes: layerNN_k.npy and _v.npy
 * [tokens][KV heads][d] after RoPE, layerNN_q.npy [queries][query heads][d] of the last tokens, float16.
 *
 *     dump_trace --text FILE --out FOLDER [--model FILE] [--tokens 2048] [--queries 256] [--skip 0]
 */
#include <stdlib.h>
#include <string.h>

#include "memory.h"
#include "plain_attention.h"
#include "sentences.h"

typedef struct dump {
  attention plain;
  uint32_t tokens, queries;
  float *rows; /* [layers][queries][query heads][d] */
} dump;

/* Attends as ever, and keeps the queries of the last tokens. */
static bool attend(void *self, const attention_input *in, float *out, failure *why) {
  dump *d = self;
  const uint64_t row = (uint64_t)in->model->query_heads * in->model->head_dim;
  const uint32_t first = d->tokens - d->queries;
  for (uint32_t r = 0; r < in->rows; r++) {
    const uint32_t token = in->tokens - in->rows + r;
    if (token < first) continue;
    const uint64_t at = ((uint64_t)in->layer * d->queries + token - first) * row;
    memcpy(d->rows + at, in->queries + r * row, row * sizeof(float));
  }
  return d->plain.attend(d->plain.self, in, out, why);
}

static bool advance(void *self, uint32_t tokens, failure *why) {
  (void)self, (void)tokens, (void)why;
  return true;
}

static FILE *begin_file(const char *folder, uint32_t layer, char what, const uint32_t shape[3]) {
  char path[1024], header[118];
  snprintf(path, sizeof path, "%s/layer%02u_%c.npy", folder, layer, what);
  FILE *file = fopen(path, "wb");
  if (file == NULL) return NULL;
  const int length =
      snprintf(header, sizeof header, "{'descr': '<f2', 'fortran_order': False, 'shape': (%u, %u, %u), }", shape[0],
               shape[1], shape[2]);
  fwrite("\x93NUMPY\x01\x00\x76\x00", 1, 10, file);
  fprintf(file, "%s%*s\n", header, 117 - length, "");
  return file;
}

/* To the nearest half; what is too small becomes zero. */
static uint16_t half_of(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  const uint32_t sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
  if (magnitude < 0x38800000u) return (uint16_t)sign;
  if (magnitude >= 0x477fe000u) return (uint16_t)(sign | 0x7bffu);
  const uint32_t rounded = magnitude + 0xfffu + (magnitude >> 13 & 1);
  return (uint16_t)(sign | ((rounded - 0x38000000u) >> 13));
}

static void write_row(FILE *file, const float *row, uint32_t count) {
  for (uint32_t i = 0; i < count; i++) {
    const uint16_t half = half_of(row[i]);
    fwrite(&half, sizeof half, 1, file);
  }
}

static bool write_layer(const dump *d, const engine *e, uint32_t layer, const char *folder, failure *why) {
  const model *m = e->model;
  const uint32_t query_shape[] = {d->queries, m->query_heads, m->head_dim};
  const uint32_t shape[] = {d->tokens, m->kv_heads, m->head_dim};
  float row[KVSIFT_MAX_HEAD_DIM];
  FILE *files[] = {begin_file(folder, layer, 'q', query_shape), begin_file(folder, layer, 'k', shape),
                   begin_file(folder, layer, 'v', shape)};
  if (files[0] == NULL || files[1] == NULL || files[2] == NULL) return fail(why, "%s cannot be written to", folder);
  const uint32_t queries = d->queries * m->query_heads;
  for (uint32_t i = 0; i < queries; i++)
    write_row(files[0], d->rows + ((uint64_t)layer * queries + i) * m->head_dim, m->head_dim);
  for (uint32_t t = 0; t < d->tokens; t++) {
    for (uint32_t h = 0; h < m->kv_heads; h++) {
      cache_read_key(&e->cache, layer, h, t, row);
      write_row(files[1], row, m->head_dim);
      cache_read_value(&e->cache, layer, h, t, row);
      write_row(files[2], row, m->head_dim);
    }
  }
  for (int i = 0; i < 3; i++)
    if (fclose(files[i]) != 0) return fail(why, "%s cannot be written to", folder);
  return true;
}

static bool read_text(engine *e, dump *d, const uint32_t *tokens, failure *why) {
  e->attention = (attention){d, attend, advance};
  for (uint32_t done = 0; done < d->tokens;) {
    const uint32_t left = d->tokens - done, batch = left < ENGINE_BATCH ? left : ENGINE_BATCH;
    if (!engine_read(e, tokens + done, batch, left - batch, why)) return false;
    done += batch;
  }
  return true;
}

static bool run(const char *model_path, const char *text_path, const char *folder, dump *d, uint32_t skip,
                failure *why) {
  model m;
  sentences text;
  engine e;
  if (!model_load(&m, model_path, why)) return false;
  workers *pool = workers_start(2, why);
  if (pool == NULL || !sentences_read(&text, &m.tokens, text_path, why)) return false;
  if (text.tokens.count < skip + d->tokens) return fail(why, "%s has %u tokens", text_path, text.tokens.count);
  if (!engine_create(&e, &m, pool, KVSIFT_F32, d->tokens, why)) return false;
  d->plain = plain_attention();
  d->rows = memory_take((uint64_t)m.layers * d->queries * m.query_heads * m.head_dim, sizeof(float));
  if (d->rows == NULL || !read_text(&e, d, text.tokens.tokens + skip, why)) return false;
  bool done = true;
  for (uint32_t layer = 0; layer < m.layers && done; layer++) done = write_layer(d, &e, layer, folder, why);
  workers_stop(pool);
  return done;
}

int main(int count, char **arguments) {
  const char *model_path = DEFAULT_MODEL, *text = NULL, *folder = NULL;
  dump d = {.tokens = 2048, .queries = 256};
  uint32_t skip = 0;
  failure why = {""};
  for (int i = 1; i + 1 < count; i += 2) {
    const char *value = arguments[i + 1];
    if (strcmp(arguments[i], "--text") == 0) text = value;
    if (strcmp(arguments[i], "--out") == 0) folder = value;
    if (strcmp(arguments[i], "--model") == 0) model_path = value;
    if (strcmp(arguments[i], "--tokens") == 0) d.tokens = (uint32_t)strtoul(value, NULL, 10);
    if (strcmp(arguments[i], "--queries") == 0) d.queries = (uint32_t)strtoul(value, NULL, 10);
    if (strcmp(arguments[i], "--skip") == 0) skip = (uint32_t)strtoul(value, NULL, 10);
  }
  if (text == NULL || folder == NULL || d.queries == 0 || d.queries > d.tokens) {
    fprintf(stderr, "usage: dump_trace --text FILE --out FOLDER [--model FILE] [--tokens N] [--queries N]"
                    " [--skip N]\n");
    return 2;
  }
  if (run(model_path, text, folder, &d, skip, &why)) return 0;
  fprintf(stderr, "dump_trace: %s\n", why.text);
  return 1;
}
