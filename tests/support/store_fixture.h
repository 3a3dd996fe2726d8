/* Stores for tests: rows that can be told from any others, arenas of just the right size, selections by hand. */
#ifndef KVSIFT_TESTS_STORE_FIXTURE_H
#define KVSIFT_TESTS_STORE_FIXTURE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "kvsift/store.h"

enum { FIXTURE_MOST_LISTS = 64, FIXTURE_MOST_RANGES = 64 };

typedef struct fixture {
  kvsift_store_config config;
  kvsift_store *store;
  kvsift_error error;
  void *arena;
  uint64_t arena_bytes;
  void *host;
  char path[64];
  uint32_t generation; /* of the rows: changes what they hold */
} fixture;

/* A half-precision number in [1, 2) that depends on everything. */
static inline uint16_t fixture_element(uint32_t generation, uint32_t layer, uint32_t head, uint32_t token, uint32_t value,
                                       uint32_t i) {
  uint64_t h = (uint64_t)generation * 0x9e3779b97f4a7c15u + layer;
  h = (h ^ (h >> 29)) * 0xbf58476d1ce4e5b9u + head;
  h = (h ^ (h >> 32)) * 0x94d049bb133111ebu + token * 2u + value;
  h = (h ^ (h >> 29)) * 0xbf58476d1ce4e5b9u + i;
  h = (h ^ (h >> 32)) * 0x94d049bb133111ebu;
  return (uint16_t)(0x3c00u | (h >> 54));
}

/* Small: 2 layers, 2 KV heads of 2 query heads, d 16, blocks of 4, 256 tokens, 16 blocks in fast memory. */
static inline void fixture_config(fixture *f, uint32_t backend) {
  memset(f, 0, sizeof *f);
  kvsift_store_config *c = &f->config;
  c->struct_size = sizeof *c;
  assert_int_equal(kvsift_store_config_init(c, backend), KVSIFT_OK);
  c->layers = 2;
  c->kv_heads = 2;
  c->query_heads = 4;
  c->head_dim = 16;
  c->max_tokens = 256;
  c->block_tokens = 4;
  c->fast_blocks = 16;
  c->sink_tokens = 4;
  c->local_tokens = 8;
  if (backend != KVSIFT_STORE_FILE) c->alignment = 64;
  c->error = &f->error;
  if (backend == KVSIFT_STORE_FILE) {
    const char *folder = getenv("TMPDIR");
    snprintf(f->path, sizeof f->path, "%s/kvsift_store_XXXXXX", folder != NULL && strlen(folder) < 32 ? folder : "/tmp");
    const int fd = mkstemp(f->path);
    assert_true(fd >= 0);
    close(fd);
    c->path = f->path;
  }
}

static inline void *fixture_memory(uint64_t bytes, uint64_t alignment) {
  void *memory = NULL;
  assert_int_equal(posix_memalign(&memory, alignment < sizeof(void *) ? sizeof(void *) : alignment, bytes), 0);
  memset(memory, 0xa5, bytes);
  return memory;
}

static inline void fixture_arena(fixture *f) {
  uint64_t alignment = 0, slow = 0;
  assert_int_equal(kvsift_store_arena_size(&f->config, &f->arena_bytes, &alignment), KVSIFT_OK);
  f->arena = fixture_memory(f->arena_bytes, alignment);
  if (f->config.backend != KVSIFT_STORE_HOST || f->host != NULL) return;
  assert_int_equal(kvsift_store_slow_size(&f->config, &slow), KVSIFT_OK);
  f->host = fixture_memory(slow, f->config.alignment);
  f->config.host_memory = f->host;
  f->config.host_bytes = slow;
}

static inline void fixture_create(fixture *f) {
  fixture_arena(f);
  const kvsift_status status = kvsift_store_create(&f->config, f->arena, f->arena_bytes, &f->store);
  if (status != KVSIFT_OK) fail_msg("create: %s", f->error.message);
}

/* Closes, opens again. */
static inline void fixture_reopen(fixture *f) {
  if (f->store != NULL) assert_int_equal(kvsift_store_close(f->store), KVSIFT_OK);
  const kvsift_status status = kvsift_store_open(&f->config, f->arena, f->arena_bytes, &f->store);
  if (status != KVSIFT_OK) fail_msg("open: %s", f->error.message);
}

static inline void fixture_end(fixture *f) {
  if (f->store != NULL) kvsift_store_close(f->store);
  if (f->path[0] != '\0') unlink(f->path);
  free(f->arena);
  free(f->host);
}

/* Tokens [first, first + tokens) of a layer, strides wider than the rows. */
static inline kvsift_status fixture_append_layer(fixture *f, uint32_t layer, uint32_t first, uint32_t tokens) {
  const kvsift_store_config *c = &f->config;
  const uint32_t heads = c->kv_heads, dim = c->head_dim, wide = dim + 8;
  uint16_t *rows = (uint16_t *)calloc((size_t)2 * heads * tokens * wide, 2);
  for (uint32_t v = 0; v < 2; ++v) {
    for (uint32_t h = 0; h < heads; ++h) {
      for (uint32_t t = 0; t < tokens; ++t) {
        for (uint32_t i = 0; i < dim; ++i) {
          rows[(((size_t)v * heads + h) * tokens + t) * wide + i] =
              fixture_element(f->generation, layer, h, first + t, v, i);
        }
      }
    }
  }
  kvsift_view view = {.data = rows, .type = KVSIFT_F16, .token_stride = 2u * wide, .head_stride = 2u * wide * tokens};
  kvsift_view values = view;
  values.data = rows + (size_t)heads * tokens * wide;
  const kvsift_status status = kvsift_store_append(f->store, layer, first, tokens, &view, &values);
  free(rows);
  return status;
}

static inline void fixture_append(fixture *f, uint32_t first, uint32_t tokens) {
  for (uint32_t l = 0; l < f->config.layers; ++l) {
    const kvsift_status status = fixture_append_layer(f, l, first, tokens);
    if (status != KVSIFT_OK) fail_msg("append: %s", kvsift_store_last_error(f->store));
  }
}

/* A selection that tests fill by hand. */
typedef struct fixture_lists {
  kvsift_selection selection;
  kvsift_range ranges[FIXTURE_MOST_LISTS][FIXTURE_MOST_RANGES];
  uint32_t counts[FIXTURE_MOST_LISTS];
} fixture_lists;

static inline kvsift_selection *lists_init(fixture_lists *s, const fixture *f, uint32_t tokens, int per_query_head) {
  memset(s, 0, sizeof *s);
  s->selection.struct_size = sizeof s->selection;
  s->selection.tokens = tokens;
  s->selection.lists = per_query_head ? f->config.query_heads : f->config.kv_heads;
  s->selection.per_query_head = per_query_head ? 1 : 0;
  s->selection.block_tokens = f->config.block_tokens;
  s->selection.range_stride = FIXTURE_MOST_RANGES;
  s->selection.ranges = s->ranges[0];
  s->selection.range_counts = s->counts;
  return &s->selection;
}

static inline void lists_add(fixture_lists *s, uint32_t list, uint32_t begin, uint32_t end) {
  s->ranges[list][s->counts[list]++] = (kvsift_range){begin, end};
}

/* [begin, end) in every list. */
static inline void lists_add_all(fixture_lists *s, uint32_t begin, uint32_t end) {
  for (uint32_t l = 0; l < s->selection.lists; ++l) lists_add(s, l, begin, end);
}

static inline const uint16_t *cache_row(const kvsift_cache *cache, int value, uint32_t head, uint32_t token) {
  const kvsift_view *view = value ? &cache->values : &cache->keys;
  const int32_t page = cache->block_table[(size_t)head * cache->block_table_stride + token / cache->page_tokens];
  assert_true(page >= 0);
  return (const uint16_t *)((const uint8_t *)view->data + (uint64_t)page * view->page_stride +
                            (token % cache->page_tokens) * view->token_stride + head * view->head_stride);
}

/* Every row that the selection names is in the cache and is what was appended. */
static inline void check_selected(const fixture *f, uint32_t layer, const kvsift_selection *selection,
                                  const kvsift_cache *cache) {
  const uint32_t group = selection->lists / f->config.kv_heads;
  for (uint32_t list = 0; list < selection->lists; ++list) {
    const kvsift_range *ranges = selection->ranges + (size_t)list * selection->range_stride;
    for (uint32_t r = 0; r < selection->range_counts[list]; ++r) {
      for (uint32_t t = ranges[r].begin; t < ranges[r].end; ++t) {
        for (uint32_t v = 0; v < 2; ++v) {
          const uint16_t *row = cache_row(cache, (int)v, list / group, t);
          for (uint32_t i = 0; i < f->config.head_dim; ++i) {
            if (row[i] == fixture_element(f->generation, layer, list / group, t, v, i)) continue;
            fail_msg("layer %u, list %u, token %u, %s %u is wrong", layer, list, t, v ? "value" : "key", i);
          }
        }
      }
    }
  }
}

static inline kvsift_status fixture_resolve(fixture *f, uint32_t layer, fixture_lists *s) {
  kvsift_cache cache = {.struct_size = sizeof cache};
  const kvsift_status status = kvsift_store_resolve(f->store, layer, &s->selection, &cache);
  if (status == KVSIFT_OK) check_selected(f, layer, &s->selection, &cache);
  return status;
}

/* Reads everything back in parts; true where every row is right. */
static inline void check_everything(fixture *f, uint32_t tokens) {
  const uint32_t dim = f->config.head_dim;
  uint16_t *rows = (uint16_t *)malloc((size_t)4 * dim * (tokens + 1));
  for (uint32_t l = 0; l < f->config.layers; ++l) {
    for (uint32_t h = 0; h < f->config.kv_heads; ++h) {
      const kvsift_status status =
          kvsift_store_read(f->store, l, h, 0, tokens, rows, rows + (size_t)dim * tokens, NULL, NULL);
      if (status != KVSIFT_OK) fail_msg("read: %s", kvsift_store_last_error(f->store));
      for (uint32_t v = 0; v < 2; ++v) {
        for (uint32_t i = 0; i < tokens * dim; ++i) {
          if (rows[(size_t)v * tokens * dim + i] == fixture_element(f->generation, l, h, i / dim, v, i % dim)) continue;
          fail_msg("layer %u, head %u, token %u, %s is wrong", l, h, i / dim, v ? "value" : "key");
        }
      }
    }
  }
  free(rows);
}

static inline kvsift_store_stats fixture_stats(const fixture *f) {
  kvsift_store_stats stats = {.struct_size = sizeof stats};
  assert_int_equal(kvsift_store_get_stats(f->store, &stats), KVSIFT_OK);
  return stats;
}

static inline kvsift_store_info fixture_info(const fixture *f) {
  kvsift_store_info info = {.struct_size = sizeof info};
  assert_int_equal(kvsift_store_get_info(f->store, &info), KVSIFT_OK);
  return info;
}

#endif
