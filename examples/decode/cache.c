#include "cache.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "kernels.h"
#include "memory.h"

static uint32_t element_bytes(kvsift_type type) {
  return type == KVSIFT_F32 ? 4 : type == KVSIFT_I8 ? 1 : 2;
}

bool cache_create(cache *out, const model *m, kvsift_type type, uint32_t capacity, failure *why) {
  *out = (cache){.type = type,
                 .layers = m->layers,
                 .kv_heads = m->kv_heads,
                 .head_dim = m->head_dim,
                 .capacity = capacity};
  out->row_bytes = (uint64_t)m->head_dim * element_bytes(type);
  uint64_t rows = (uint64_t)m->layers * m->kv_heads * capacity;
  out->keys = memory_take(rows, out->row_bytes);
  out->values = memory_take(rows, out->row_bytes);
  bool done = out->keys != NULL && out->values != NULL;
  if (type == KVSIFT_I8) {
    out->key_scales = memory_take(rows, sizeof(float));
    out->value_scales = memory_take(rows, sizeof(float));
    done = done && out->key_scales != NULL && out->value_scales != NULL;
  }
  if (done) return true;
  cache_release(out);
  return fail(why, "no memory for a cache of %" PRIu32 " tokens (%" PRIu64 " bytes)", capacity,
              2 * rows * out->row_bytes);
}

void cache_release(cache *out) {
  memory_give(out->keys);
  memory_give(out->values);
  memory_give(out->key_scales);
  memory_give(out->value_scales);
  out->keys = out->values = NULL;
  out->key_scales = out->value_scales = NULL;
}

static uint64_t row_index(const cache *c, uint32_t layer, uint32_t head, uint32_t token) {
  return ((uint64_t)layer * c->kv_heads + head) * c->capacity + token;
}

static float quantise(const float *from, uint32_t count, int8_t *to) {
  float largest = 0;
  for (uint32_t i = 0; i < count; i++) largest = fmaxf(largest, fabsf(from[i]));
  float scale = largest / 127, inverse = largest > 0 ? 127 / largest : 0;
  for (uint32_t i = 0; i < count; i++) to[i] = (int8_t)lrintf(from[i] * inverse);
  return scale;
}

static void pack(const cache *c, const float *from, void *to, float *scale) {
  switch (c->type) {
    case KVSIFT_F32:
      memcpy(to, from, c->row_bytes);
      break;
    case KVSIFT_F16:
      for (uint32_t i = 0; i < c->head_dim; i++) ((uint16_t *)to)[i] = float_to_half(from[i]);
      break;
    case KVSIFT_BF16:
      for (uint32_t i = 0; i < c->head_dim; i++) ((uint16_t *)to)[i] = float_to_bfloat(from[i]);
      break;
    default:
      *scale = quantise(from, c->head_dim, to);
  }
}

static void unpack(const cache *c, const void *from, const float *scale, float *to) {
  const uint16_t *halves = from;
  const int8_t *bytes = from;
  switch (c->type) {
    case KVSIFT_F32:
      memcpy(to, from, c->row_bytes);
      break;
    case KVSIFT_F16:
      for (uint32_t i = 0; i < c->head_dim; i++) to[i] = half_to_float(halves[i]);
      break;
    case KVSIFT_BF16:
      for (uint32_t i = 0; i < c->head_dim; i++) to[i] = bfloat_to_float(halves[i]);
      break;
    default:
      for (uint32_t i = 0; i < c->head_dim; i++) to[i] = *scale * (float)bytes[i];
  }
}

void cache_write(cache *to, uint32_t layer, uint32_t head, uint32_t token, const float *key,
                 const float *value) {
  uint64_t row = row_index(to, layer, head, token);
  bool scaled = to->type == KVSIFT_I8;
  pack(to, key, to->keys + row * to->row_bytes, scaled ? &to->key_scales[row] : NULL);
  pack(to, value, to->values + row * to->row_bytes, scaled ? &to->value_scales[row] : NULL);
}

void cache_read_key(const cache *from, uint32_t layer, uint32_t head, uint32_t token, float *out) {
  uint64_t row = row_index(from, layer, head, token);
  unpack(from, from->keys + row * from->row_bytes, from->key_scales ? from->key_scales + row : NULL,
         out);
}

void cache_read_value(const cache *from, uint32_t layer, uint32_t head, uint32_t token,
                      float *out) {
  uint64_t row = row_index(from, layer, head, token);
  unpack(from, from->values + row * from->row_bytes,
         from->value_scales ? from->value_scales + row : NULL, out);
}

void cache_spoil(const cache *in) {
  uint64_t bytes = (uint64_t)in->layers * in->kv_heads * in->capacity * in->row_bytes;
  memset(in->keys, 0x7f, bytes);
  memset(in->values, 0x7f, bytes);
}

static kvsift_view view_of(const cache *c, const uint8_t *data, const float *scales,
                           uint64_t first_row) {
  kvsift_view view = {.data = data + first_row * c->row_bytes,
                      .type = c->type,
                      .token_stride = c->row_bytes,
                      .head_stride = c->capacity * c->row_bytes};
  if (c->type == KVSIFT_I8) {
    view.scales = scales + first_row;
    view.scale_token_stride = sizeof(float);
    view.scale_head_stride = (uint64_t)c->capacity * sizeof(float);
  }
  return view;
}

kvsift_cache cache_layer(const cache *from, uint32_t layer, uint32_t tokens) {
  uint64_t first = row_index(from, layer, 0, 0);
  return (kvsift_cache){.struct_size = sizeof(kvsift_cache),
                        .tokens = tokens,
                        .keys = view_of(from, from->keys, from->key_scales, first),
                        .values = view_of(from, from->values, from->value_scales, first)};
}

uint64_t cache_row_bytes(const cache *from) {
  return from->row_bytes + (from->type == KVSIFT_I8 ? sizeof(float) : 0);
}
