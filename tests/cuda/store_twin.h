/* A policy and a store on the CPU, and the same on the device, over the same rows. */
#ifndef KVSIFT_TESTS_STORE_TWIN_H
#define KVSIFT_TESTS_STORE_TWIN_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <kvsift/kvsift_cuda.h>

#include "cases.h"
#include "gpu.h"
#include "random.h"

enum { LAYERS = 2, HEADS = 4, KV_HEADS = 2, DIM = 32, PROMPT = 400, STEPS = 12, TOKENS = PROMPT + STEPS, BLOCK = 16 };
enum { BLOCKS = (TOKENS + BLOCK - 1) / BLOCK };

typedef struct twin_form {
  kvsift_method method;
  uint32_t grouping, tail, everything; /* 0: never, 1: in layer 0, 2: until PROMPT + 5 tokens in all */
  kvsift_type type, storage;
  uint32_t late_blocks, checksums;
} twin_form;

typedef struct twin {
  twin_form form;
  test_random random;
  uint8_t *rows[2], *device_rows[2];      /* keys, values: [layer][token][KV head][DIM] of the type */
  float *scales[2], *device_scales[2];    /* [layer][token][KV head], I8 */
  float query[HEADS * DIM], *device_query, *device_out;
  float *block_max, *log_sum_exp;         /* device: [query head][BLOCKS], [query head] */
  kvsift_policy *policy;
  kvsift_store *store;
  kvsift_cuda_policy *device_policy;
  kvsift_cuda_store *device_store;
  void *memory[9];
} twin;

twin *twin_new(twin_form form);
void twin_free(twin *t);
/* Rows of both sides, keys (0) or values (1). */
kvsift_view twin_view(const twin *t, uint32_t which, uint32_t layer, uint32_t first, bool on_device);
/* The new tokens to both policies and both stores; what the CPU's store writes is waited for. */
void twin_append(twin *t, uint32_t layer, uint32_t first, uint32_t tokens);
void twin_advance(twin *t, uint32_t tokens);
/* A random query, here and on the device. */
kvsift_query twin_query(twin *t, uint32_t tokens, bool on_device);

/* Calls of one side. */
#define HERE(t, call) \
  expect((call) == KVSIFT_OK, "%s%s", kvsift_last_error((t)->policy), kvsift_store_last_error((t)->store))
#define THERE(t, call)                                                                       \
  expect((call) == KVSIFT_OK, "%s%s", kvsift_cuda_last_error((t)->device_policy), \
         kvsift_cuda_store_last_error((t)->device_store))

#endif
