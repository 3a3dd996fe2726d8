#include "guarded.h" /* first: asks libc for mmap */
#include "toy.h"

#include <stdlib.h>
#include <string.h>

#include "random.h"

enum { SHIFT = 6 }; /* numbers are whole multiples of 2^-6 */

static uint32_t element_bytes(kvsift_type type) {
  return type == KVSIFT_F32 ? 4 : type == KVSIFT_I8 ? 1 : 2;
}

static uint32_t mixed(uint64_t seed, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  test_random r = {seed ^ ((uint64_t)a << 48) ^ ((uint64_t)b << 32) ^ ((uint64_t)c << 12) ^ d};
  (void)random_bits(&r);
  return random_bits(&r);
}

/* Multiples of 2^-6 within int8's range: noise, and a common direction for some tokens so that attention has peaks. */
static int whole_number(const toy *t, toy_kind kind, uint32_t layer, uint32_t head, uint32_t token, uint32_t channel) {
  const uint32_t stream = (uint32_t)kind * 1024 + layer;
  const uint32_t bits = mixed(t->seed, stream, head, token, channel);
  int n = (int)(bits & 31) + (int)(bits >> 8 & 31) - 31;
  const uint32_t group = t->query_heads / t->kv_heads;
  const uint32_t kv_head = kind == TOY_QUERY ? head / group : head;
  const bool heavy = kind == TOY_QUERY || (kind == TOY_KEY && mixed(t->seed, stream, head, token, 9999) % 11 == 0);
  if (heavy) n += (mixed(t->seed, layer, kv_head, 7, channel) & 1) != 0 ? 40 : -40;
  return n;
}

/* Exact for the numbers of a toy: at most 8 significant bits, no subnormals. */
static uint16_t half_bits(float x) {
  uint32_t b;
  memcpy(&b, &x, sizeof b);
  if (x == 0) return 0;
  return (uint16_t)((b >> 16 & 0x8000) | (((b >> 23 & 255) - 112) << 10) | (b >> 13 & 0x3ff));
}

static void store(uint8_t *row, kvsift_type type, uint32_t channel, int n) {
  const float x = (float)n / (1 << SHIFT);
  uint32_t bits;
  uint16_t narrow;
  memcpy(&bits, &x, sizeof bits);
  switch (type) {
    case KVSIFT_F32: memcpy(row + 4 * channel, &x, 4); break;
    case KVSIFT_F16: narrow = half_bits(x); memcpy(row + 2 * channel, &narrow, 2); break;
    case KVSIFT_BF16: narrow = (uint16_t)(bits >> 16); memcpy(row + 2 * channel, &narrow, 2); break;
    default: row[channel] = (uint8_t)(int8_t)n;
  }
}

/* Strides for `slots` tokens a page (or all of them) of `heads` heads. */
static kvsift_view shaped(const toy_form *form, uint32_t dim, uint32_t heads, uint32_t slots) {
  const uint64_t row = (uint64_t)(dim + form->gap) * element_bytes(form->type);
  kvsift_view v = {.type = form->type};
  v.token_stride = form->heads_first ? row : row * heads;
  v.head_stride = form->heads_first ? row * slots : row;
  v.page_stride = row * heads * slots;
  if (form->type == KVSIFT_I8) {
    v.scale_token_stride = 4 * (form->heads_first ? 1u : heads);
    v.scale_head_stride = 4 * (form->heads_first ? slots : 1u);
    v.scale_page_stride = 4ull * heads * slots;
  }
  return v;
}

static void fill(const toy *t, toy_kind kind, uint32_t layer, toy_rows *rows, bool paged) {
  const uint32_t heads = kind == TOY_QUERY ? t->query_heads : t->kv_heads;
  for (uint32_t head = 0; head < heads; ++head) {
    for (uint32_t token = 0; token < t->tokens; ++token) {
      uint64_t page = 0, offset = token;
      if (paged) {
        const int32_t *table = t->table + (t->form.table_per_head ? head * t->pages : 0);
        page = (uint64_t)table[token / t->form.page_tokens];
        offset = token % t->form.page_tokens;
      }
      const kvsift_view *v = &rows->view;
      uint8_t *row = (uint8_t *)v->data + page * v->page_stride + offset * v->token_stride + head * v->head_stride;
      for (uint32_t c = 0; c < t->dim; ++c) store(row, v->type, c, whole_number(t, kind, layer, head, token, c));
      if (v->scales == NULL) continue;
      const float scale = 1.0f / (1 << SHIFT);
      memcpy((uint8_t *)v->scales + page * v->scale_page_stride + offset * v->scale_token_stride +
                 head * v->scale_head_stride, &scale, sizeof scale);
    }
  }
}

/* Rows end at a page that cannot be read: nothing may look beyond the last element. */
static void build(const toy *t, toy_kind kind, uint32_t layer, toy_rows *rows, bool paged) {
  const uint32_t heads = kind == TOY_QUERY ? t->query_heads : t->kv_heads;
  const uint32_t slots = paged ? t->form.page_tokens : t->tokens, pages = paged ? t->pages : 1;
  rows->view = shaped(&t->form, t->dim, heads, slots);
  rows->bytes = pages * rows->view.page_stride - t->form.gap * element_bytes(t->form.type);
  rows->scale_bytes = pages * rows->view.scale_page_stride;
  rows->view.data = guarded_new(rows->bytes);
  if (t->form.type == KVSIFT_I8) rows->view.scales = guarded_new(rows->scale_bytes);
  fill(t, kind, layer, rows, paged);
}

static void make_table(toy *t) {
  test_random r = {t->seed + 77};
  const uint32_t heads = t->form.table_per_head ? t->kv_heads : 1;
  t->table = calloc((size_t)heads * t->pages, sizeof *t->table);
  for (uint32_t h = 0; h < heads; ++h) {
    int32_t *table = t->table + (size_t)h * t->pages;
    for (uint32_t i = 0; i < t->pages; ++i) {
      const uint32_t j = random_below(&r, i + 1);
      table[i] = table[j];
      table[j] = (int32_t)i;
    }
  }
}

toy *toy_new(uint64_t seed, const kvsift_policy_config *config, toy_form form) {
  toy *t = calloc(1, sizeof *t);
  t->seed = seed;
  t->layers = config->layers;
  t->kv_heads = config->kv_heads;
  t->query_heads = config->query_heads;
  t->dim = config->head_dim;
  t->tokens = config->max_tokens;
  t->form = form;
  t->queries = calloc(t->layers, sizeof *t->queries);
  t->keys = calloc(t->layers, sizeof *t->keys);
  t->values = calloc(t->layers, sizeof *t->values);
  if (form.page_tokens > 0) {
    t->pages = (t->tokens + form.page_tokens - 1) / form.page_tokens;
    t->paged_keys = calloc(t->layers, sizeof *t->paged_keys);
    t->paged_values = calloc(t->layers, sizeof *t->paged_values);
    make_table(t);
  }
  for (uint32_t layer = 0; layer < t->layers; ++layer) {
    build(t, TOY_QUERY, layer, &t->queries[layer], false);
    build(t, TOY_KEY, layer, &t->keys[layer], false);
    build(t, TOY_VALUE, layer, &t->values[layer], false);
    if (form.page_tokens == 0) continue;
    build(t, TOY_KEY, layer, &t->paged_keys[layer], true);
    build(t, TOY_VALUE, layer, &t->paged_values[layer], true);
  }
  return t;
}

static void drop(toy_rows *rows, uint32_t layers) {
  for (uint32_t i = 0; rows != NULL && i < layers; ++i) {
    guarded_free((void *)rows[i].view.data, rows[i].bytes);
    if (rows[i].view.scales != NULL) guarded_free((void *)rows[i].view.scales, rows[i].scale_bytes);
  }
  free(rows);
}

void toy_free(toy *t) {
  drop(t->queries, t->layers);
  drop(t->keys, t->layers);
  drop(t->values, t->layers);
  drop(t->paged_keys, t->layers);
  drop(t->paged_values, t->layers);
  free(t->table);
  free(t);
}

kvsift_view toy_view(const toy *t, toy_kind kind, uint32_t layer, uint32_t first) {
  const toy_rows *rows = kind == TOY_QUERY ? t->queries : kind == TOY_KEY ? t->keys : t->values;
  kvsift_view v = rows[layer].view;
  v.data = (const uint8_t *)v.data + first * v.token_stride;
  if (v.scales != NULL) v.scales = (const float *)((const uint8_t *)v.scales + first * v.scale_token_stride);
  return v;
}

const float *toy_row(const toy *t, toy_kind kind, uint32_t layer, uint32_t head, uint32_t token) {
  const kvsift_view v = toy_view(t, kind, layer, token);
  return (const float *)((const uint8_t *)v.data + head * v.head_stride);
}

kvsift_cache toy_cache(const toy *t, uint32_t layer, uint32_t tokens) {
  kvsift_cache cache = {.struct_size = sizeof cache, .tokens = tokens};
  cache.keys = t->keys[layer].view;
  cache.values = t->values[layer].view;
  if (t->form.page_tokens == 0) return cache;
  cache.keys = t->paged_keys[layer].view;
  cache.values = t->paged_values[layer].view;
  cache.block_table = t->table;
  cache.page_tokens = t->form.page_tokens;
  cache.block_table_stride = t->form.table_per_head ? t->pages : 0;
  return cache;
}
