#include "picture.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "memory.h"
#include "plain_attention.h"

#define LEVELS 16
#define LEVELS_AN_OCTAVE 1.25

static const char alphabet[65] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/* The attention predictor's middle budget is what one wants to see; else any that chooses. */
static uint32_t worth_drawing(const contest *all) {
  uint32_t first = 0, count = 0;
  for (uint32_t i = 0; i < all->count; i++) {
    const contestant *c = &all->list[i];
    if (c->method != KVSIFT_METHOD_ATTENTION_PREDICTOR || c->tail != KVSIFT_TAIL_NONE) continue;
    if (count++ == 0) first = i;
  }
  if (count > 0) return first + count / 2;
  return all->count > 1 ? 1 : 0;
}

bool picture_create(picture *out, const contest *all, const model *m, uint32_t first_tokens,
                    uint32_t rows, failure *why) {
  uint32_t contestant = worth_drawing(all);
  uint32_t block = all->list[contestant].sift.config.block_tokens;
  *out = (picture){.contestant = contestant,
                   .layers = m->layers,
                   .query_heads = m->query_heads,
                   .rows = rows,
                   .columns = (first_tokens + rows + block - 2) / block,
                   .first_tokens = first_tokens};
  uint64_t strings = (uint64_t)m->layers * m->query_heads * rows;
  out->cells = memory_take(strings, out->columns + 1);
  return out->cells != NULL || fail(why, "no memory for a picture of %u columns", out->columns);
}

void picture_release(picture *out) {
  memory_give(out->cells);
  memset(out, 0, sizeof *out);
}

static char *row_of(const picture *of, uint32_t layer, uint32_t head, uint32_t row) {
  uint64_t index = ((uint64_t)layer * of->query_heads + head) * of->rows + row;
  return of->cells + index * (of->columns + 1);
}

bool picture_set_row(picture *to, uint32_t layer, uint32_t head, uint32_t row, const char *cells) {
  size_t length = strlen(cells);
  if (layer >= to->layers || head >= to->query_heads || row >= to->rows || length > to->columns) {
    return false;
  }
  memcpy(row_of(to, layer, head, row), cells, length + 1);
  return true;
}

const char *picture_row(const picture *of, uint32_t layer, uint32_t head, uint32_t row) {
  return row_of(of, layer, head, row);
}

typedef struct block_view {
  float largest, mass;
  uint32_t index;
  bool kept, best;
} block_view;

static void view_blocks(const float *weights, uint32_t tokens, uint32_t block, block_view *out) {
  for (uint32_t t = 0; t < tokens; t++) {
    block_view *b = &out[t / block];
    if (t % block == 0) *b = (block_view){.index = t / block};
    b->largest = fmaxf(b->largest, weights[t]);
    b->mass += weights[t];
  }
}

static int heavier_first(const void *a, const void *b) {
  const block_view *x = a, *y = b;
  if (x->mass != y->mass) return x->mass < y->mass ? 1 : -1;
  return x->index < y->index ? -1 : 1;
}

static int by_index(const void *a, const void *b) {
  const block_view *x = a, *y = b;
  return x->index < y->index ? -1 : 1;
}

static void mark_best(block_view *blocks, uint32_t count, uint32_t best) {
  qsort(blocks, count, sizeof *blocks, heavier_first);
  for (uint32_t i = 0; i < count && i < best; i++) blocks[i].best = true;
  qsort(blocks, count, sizeof *blocks, by_index);
}

static char cell_of(const block_view *b) {
  double level = LEVELS - 1 + LEVELS_AN_OCTAVE * log2((double)b->largest + 1e-30);
  unsigned bits = (unsigned)fmin(fmax(round(level), 0), LEVELS - 1);
  return alphabet[bits << 2 | (unsigned)b->kept << 1 | b->best];
}

static void draw_head(picture *to, const attention_input *in, const kvsift_selection *s,
                      uint32_t head, float *weights, block_view *blocks) {
  uint32_t kv_head = head / (in->model->query_heads / in->model->kv_heads);
  uint32_t count = (in->tokens + s->block_tokens - 1) / s->block_tokens;
  uint32_t index = s->per_query_head ? head : kv_head, kept = s->block_counts[index];
  const uint32_t *list = s->blocks + (uint64_t)index * s->block_stride;
  char *cells = row_of(to, in->layer, head, in->tokens - to->first_tokens);
  if (kept == 0) return; /* a dense layer */
  plain_weights(in->cache, in->layer, kv_head, in->queries + (uint64_t)head * in->model->head_dim,
                in->tokens, weights);
  view_blocks(weights, in->tokens, s->block_tokens, blocks);
  for (uint32_t i = 0; i < kept; i++) blocks[list[i]].kept = true;
  mark_best(blocks, count, kept);
  for (uint32_t i = 0; i < count; i++) cells[i] = cell_of(&blocks[i]);
}

void picture_draw(picture *to, const attention_input *in, const kvsift_selection *s) {
  uint32_t count = (in->tokens + s->block_tokens - 1) / s->block_tokens;
  if (in->tokens < to->first_tokens || in->tokens - to->first_tokens >= to->rows ||
      count > to->columns) {
    return;
  }
  float *weights = memory_take(in->tokens, sizeof *weights);
  block_view *blocks = memory_take(count, sizeof *blocks);
  if (weights != NULL && blocks != NULL) {
    for (uint32_t h = 0; h < in->model->query_heads; h++) {
      draw_head(to, in, s, h, weights, blocks);
    }
  }
  memory_give(weights);
  memory_give(blocks);
}

static void write_head(json *j, const picture *of, uint32_t layer, uint32_t head) {
  if (*row_of(of, layer, head, of->rows - 1) == 0) return;
  json_open(j, NULL, '{');
  json_whole(j, "layer", layer);
  json_whole(j, "head", head);
  json_open(j, "rows", '[');
  for (uint32_t r = 0; r < of->rows; r++) json_text(j, NULL, row_of(of, layer, head, r));
  json_close(j, ']');
  json_close(j, '}');
}

void picture_write_json(json *j, const picture *of, const contest *all) {
  json_open(j, "picture", '{');
  json_whole(j, "policy", of->contestant);
  json_whole(j, "block_tokens", all->list[of->contestant].sift.config.block_tokens);
  json_whole(j, "first_tokens", of->first_tokens);
  json_open(j, "heads", '[');
  for (uint32_t layer = 0; layer < of->layers; layer++) {
    for (uint32_t head = 0; head < of->query_heads; head++) write_head(j, of, layer, head);
  }
  json_close(j, ']');
  json_close(j, '}');
}
