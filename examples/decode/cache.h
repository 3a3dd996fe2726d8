/* The KV cache: keys after RoPE and values, [layer][KV head][token][head_dim] in any type that
 * kvsift reads in place. */
#ifndef DECODE_CACHE_H
#define DECODE_CACHE_H

#include <kvsift/kvsift.h>

#include "model.h"

typedef struct cache {
  kvsift_type type;
  uint32_t layers, kv_heads, head_dim, capacity;
  uint32_t tokens; /* rows present in every layer */
  uint64_t row_bytes;
  uint8_t *keys, *values;
  float *key_scales, *value_scales; /* KVSIFT_I8: one a row */
} cache;

bool cache_create(cache *out, const model *m, kvsift_type type, uint32_t capacity, failure *why);
void cache_release(cache *out);

void cache_write(cache *to, uint32_t layer, uint32_t head, uint32_t token, const float *key,
                 const float *value);
void cache_read_key(const cache *from, uint32_t layer, uint32_t head, uint32_t token, float *out);
void cache_read_value(const cache *from, uint32_t layer, uint32_t head, uint32_t token, float *out);

/* Overwrites all rows: what is right afterwards was not read from here. */
void cache_spoil(const cache *in);

/* One layer as kvsift takes it, with `tokens` rows present. */
kvsift_cache cache_layer(const cache *from, uint32_t layer, uint32_t tokens);

/* Bytes of one key, or one value, its scale included. */
uint64_t cache_row_bytes(const cache *from);

#endif
