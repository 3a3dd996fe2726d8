/* A toy model's keys, values and queries: a function of the seed, the layer, the head and the token alone.
 * All numbers have few enough bits to be the same in every element type, so runs over differently stored caches must
 * agree to the bit. */
#ifndef KVSIFT_TESTS_TOY_H
#define KVSIFT_TESTS_TOY_H

#include <stdbool.h>
#include <stdint.h>

#include "kvsift/kvsift.h"

/* How the cache is stored. */
typedef struct toy_form {
  kvsift_type type;
  uint32_t page_tokens;   /* 0: contiguous */
  bool table_per_head;
  bool heads_first;       /* [head][token], else [token][head] */
  uint32_t gap;           /* elements between a row's end and the next */
} toy_form;

/* The rows of one kind in one layer. */
typedef struct toy_rows {
  uint64_t bytes, scale_bytes;
  kvsift_view view;
} toy_rows;

typedef struct toy {
  uint64_t seed;
  uint32_t layers, kv_heads, query_heads, dim, tokens;
  toy_form form;
  toy_rows *queries, *keys, *values;  /* [layers], contiguous */
  toy_rows *paged_keys, *paged_values;
  int32_t *table;                     /* [kv_heads or 1][pages] */
  uint32_t pages;
} toy;

typedef enum toy_kind { TOY_QUERY, TOY_KEY, TOY_VALUE } toy_kind;

/* Geometry and capacity from `config`. */
toy *toy_new(uint64_t seed, const kvsift_policy_config *config, toy_form form);
void toy_free(toy *t);

/* The row itself, where the form is float32. */
const float *toy_row(const toy *t, toy_kind kind, uint32_t layer, uint32_t head, uint32_t token);

/* Views of tokens from `first` on, as kvsift_observe_keys and queries take them. */
kvsift_view toy_view(const toy *t, toy_kind kind, uint32_t layer, uint32_t first);
kvsift_cache toy_cache(const toy *t, uint32_t layer, uint32_t tokens);

#endif
