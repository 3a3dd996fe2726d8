/* A store in front of pinned memory for tests, and rows for it, here and on the device. */
#ifndef KVSIFT_TESTS_DEVICE_STORE_H
#define KVSIFT_TESTS_DEVICE_STORE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <kvsift/kvsift_cuda.h>

#include "cases.h"
#include "gpu.h"
#include "random.h"

typedef struct fixture {
  kvsift_cuda_store_config config;
  kvsift_cuda_arenas arenas;
  kvsift_cuda_store *store;
  kvsift_error error;
  uint64_t row_bytes, head_bytes, layer_bytes, record_bytes;
  uint32_t blocks;
  uint8_t *keys, *values;             /* [layer][KV head][max_tokens][dim] */
  uint8_t *device_keys, *device_values;
  uint32_t tokens[4];                 /* [layers] */
  kvsift_range *ranges;               /* [query heads][stride] */
  uint32_t *counts, stride;
  uint8_t *slots;                     /* scratch: a layer's slots as read back */
  int32_t *table;                     /* likewise */
} fixture;

/* One layer, two KV heads of two query heads, float16, d 32, 400 tokens in blocks of 16; 12 blocks of a head are fast. */
kvsift_cuda_store_config small_config(void);
/* Storage is the type. */
fixture *fixture_new(kvsift_cuda_store_config config, test_random *r);
void fixture_free(fixture *f);
void create(fixture *f);
void fine(const fixture *f, kvsift_status status);

kvsift_view view_of(const fixture *f, const uint8_t *base, uint32_t layer, uint32_t token);
kvsift_status append(fixture *f, uint32_t layer, uint32_t tokens);
/* The record in slow memory. */
uint8_t *record_of(const fixture *f, uint32_t layer, uint32_t head, uint32_t block);

/* The same block for each KV head. */
kvsift_selection block_of_each(fixture *f, uint32_t block);
/* Reads the layer's table and slots, and compares what the table calls resident with the rows. */
void check_resident(fixture *f, uint32_t layer, const kvsift_cache *cache);

#endif
