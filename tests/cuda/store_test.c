/* The store in front of pinned memory: contents byte for byte over random sequences, attention over its slots, and what
 * it does when the driver fails. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
  int32_t *table;
} fixture;

static void fill(uint8_t *to, uint64_t bytes, test_random *r) {
  for (uint64_t i = 0; i < bytes; ++i) to[i] = (uint8_t)(random_below(r, 256) & 0x3bu); /* no NaN in any type */
}

static kvsift_cuda_store_config pick_config(test_random *r) {
  kvsift_cuda_store_config c = {.struct_size = sizeof c};
  assert_int_equal(kvsift_cuda_store_config_init(&c), KVSIFT_OK);
  c.layers = 1 + random_below(r, 2), c.kv_heads = 1 + random_below(r, 3),
  c.query_heads = c.kv_heads * (1 + random_below(r, 2));
  c.head_dim = 8 * (1 + random_below(r, 4)) - random_below(r, 2), c.block_tokens = 1u << random_below(r, 5);
  c.max_tokens = c.block_tokens * (6 + random_below(r, 20)) - random_below(r, c.block_tokens);
  c.type = (kvsift_type)random_below(r, 3);
  c.sink_tokens = random_below(r, c.block_tokens + 1), c.local_tokens = random_below(r, 2 * c.block_tokens + 1);
  c.fast_blocks = 8 + random_below(r, 5), c.resident_layers = random_below(r, 3) == 0;
  c.run_blocks = random_below(r, 4), c.max_ranges = c.max_tokens;
  return c;
}

static void take_arenas(fixture *f) {
  kvsift_cuda_sizes sizes = {.struct_size = sizeof sizes};
  expect(kvsift_cuda_store_sizes(&f->config, &sizes) == KVSIFT_OK, "sizes: %s", f->error.message);
  f->arenas = (kvsift_cuda_arenas){.struct_size = sizeof f->arenas,
                                   .device_bytes = sizes.device,
                                   .pinned_bytes = sizes.pinned,
                                   .host_bytes = sizes.host};
  f->arenas.device = gpu_new(sizes.device, NULL);
  f->arenas.pinned = gpu_new_pinned(sizes.pinned);
  f->arenas.host = aligned_alloc(KVSIFT_ARENA_ALIGNMENT, sizes.host);
  memset(f->arenas.host, 0xa5, sizes.host);
}

static fixture *fixture_new(kvsift_cuda_store_config config, test_random *r) {
  fixture *f = calloc(1, sizeof *f);
  f->config = config;
  f->config.error = &f->error;
  take_arenas(f);
  f->row_bytes = config.head_dim * (config.type == KVSIFT_F32 ? 4u : 2u);
  f->head_bytes = f->row_bytes * config.max_tokens;
  f->layer_bytes = f->head_bytes * config.kv_heads;
  f->record_bytes = (2 * f->row_bytes * config.block_tokens + 63) / 64 * 64;
  f->blocks = (config.max_tokens + config.block_tokens - 1) / config.block_tokens;
  const uint64_t all = f->layer_bytes * config.layers;
  f->keys = malloc(all), f->values = malloc(all);
  fill(f->keys, all, r), fill(f->values, all, r);
  f->device_keys = gpu_new(all, f->keys), f->device_values = gpu_new(all, f->values);
  f->stride = config.max_tokens;
  f->ranges = calloc((size_t)config.query_heads * f->stride, sizeof *f->ranges);
  f->counts = calloc(config.query_heads, sizeof *f->counts);
  f->slots = malloc(f->arenas.device_bytes), f->table = malloc((size_t)config.kv_heads * f->blocks * sizeof *f->table);
  return f;
}

static void fine(const fixture *f, kvsift_status status) {
  expect(status == KVSIFT_OK, "%s", kvsift_cuda_store_last_error(f->store));
}

static void create(fixture *f) {
  const kvsift_status status = kvsift_cuda_store_create(&f->config, &f->arenas, gpu_stream(), &f->store);
  expect(status == KVSIFT_OK, "create: %s", f->error.message);
}

static void fixture_free(fixture *f) {
  gpu_wait();
  if (f->store != NULL) assert_int_equal(kvsift_cuda_store_destroy(f->store), KVSIFT_OK);
  gpu_free(f->arenas.device);
  gpu_free_pinned(f->arenas.pinned);
  gpu_free(f->device_keys);
  gpu_free(f->device_values);
  void *all[] = {f->arenas.host, f->keys, f->values, f->ranges, f->counts, f->slots, f->table, f};
  for (size_t i = 0; i < sizeof all / sizeof *all; ++i) free(all[i]);
}

static kvsift_view view_of(const fixture *f, const uint8_t *base, uint32_t layer, uint32_t token) {
  return (kvsift_view){.data = base + layer * f->layer_bytes + token * f->row_bytes, .type = f->config.type,
                       .token_stride = f->row_bytes, .head_stride = f->head_bytes};
}

static kvsift_status append(fixture *f, uint32_t layer, uint32_t tokens) {
  const kvsift_view keys = view_of(f, f->device_keys, layer, f->tokens[layer]);
  const kvsift_view values = view_of(f, f->device_values, layer, f->tokens[layer]);
  const kvsift_status status =
      kvsift_cuda_store_append(f->store, layer, f->tokens[layer], tokens, &keys, &values, gpu_stream());
  if (status == KVSIFT_OK) f->tokens[layer] += tokens;
  return status;
}

/* Lists that fit beside the pinned blocks, at most four a KV head: at most two blocks each. */
static kvsift_selection pick_lists(fixture *f, uint32_t layer, test_random *r) {
  const bool by_query = random_below(r, 2) == 0;
  kvsift_selection s = {.struct_size = sizeof s, .tokens = f->tokens[layer], .per_query_head = by_query,
                        .block_tokens = f->config.block_tokens, .range_stride = f->stride, .ranges = f->ranges,
                        .range_counts = f->counts};
  s.lists = by_query ? f->config.query_heads : f->config.kv_heads;
  for (uint32_t i = 0; i < s.lists; ++i) {
    const uint32_t wanted = 1 + random_below(r, f->config.block_tokens);
    const uint32_t begin = random_below(r, s.tokens), end = begin + wanted < s.tokens ? begin + wanted : s.tokens;
    f->ranges[(size_t)i * f->stride] = (kvsift_range){begin, end};
    f->counts[i] = 1;
  }
  return s;
}

/* What the table calls resident has the right bytes. */
static void check_resident(fixture *f, uint32_t layer, const kvsift_cache *cache) {
  const kvsift_cuda_store_config *c = &f->config;
  const uint64_t keys = f->row_bytes * c->block_tokens;
  gpu_read(f->table, cache->block_table, (size_t)c->kv_heads * f->blocks * sizeof *f->table);
  const uint32_t per_layer =
      c->kv_heads * (layer < c->resident_layers || c->fast_blocks > f->blocks ? f->blocks : c->fast_blocks);
  gpu_read(f->slots, cache->keys.data, per_layer * f->record_bytes);
  for (uint32_t h = 0; h < c->kv_heads; ++h) {
    for (uint32_t b = 0; b < f->blocks; ++b) {
      const int32_t slot = f->table[h * cache->block_table_stride + b];
      const uint32_t first = b * c->block_tokens;
      if (slot < 0) continue;
      expect((uint32_t)slot < per_layer && first < f->tokens[layer], "layer %u, block %u is in slot %d", layer, b,
             slot);
      const uint32_t left = f->tokens[layer] - first, rows = left < c->block_tokens ? left : c->block_tokens;
      const uint64_t at = layer * f->layer_bytes + h * f->head_bytes + first * f->row_bytes;
      const uint8_t *record = f->slots + (uint32_t)slot * f->record_bytes;
      expect(memcmp(record, f->keys + at, rows * f->row_bytes) == 0 &&
                 memcmp(record + keys, f->values + at, rows * f->row_bytes) == 0,
             "layer %u, head %u, block %u differs", layer, h, b);
    }
  }
}

static void check_selected(const fixture *f, const kvsift_selection *s, const kvsift_cache *cache) {
  const uint32_t group = s->lists / f->config.kv_heads;
  for (uint32_t i = 0; i < s->lists; ++i) {
    const kvsift_range range = f->ranges[(size_t)i * f->stride];
    for (uint32_t b = range.begin / f->config.block_tokens; b <= (range.end - 1) / f->config.block_tokens; ++b) {
      expect(f->table[i / group * cache->block_table_stride + b] >= 0, "list %u: block %u is not there", i, b);
    }
  }
}

static void resolve_and_check(fixture *f, uint32_t layer, test_random *r) {
  kvsift_selection s = pick_lists(f, layer, r);
  kvsift_cache cache = {.struct_size = sizeof cache};
  fine(f, kvsift_cuda_store_resolve(f->store, layer, &s, &cache, gpu_stream()));
  check_resident(f, layer, &cache);
  check_selected(f, &s, &cache);
}

/* Completed blocks in slow memory. */
static void check_slow(fixture *f) {
  const kvsift_cuda_store_config *c = &f->config;
  fine(f, kvsift_cuda_store_flush(f->store));
  for (uint32_t l = 0; l < c->layers; ++l) {
    for (uint32_t h = 0; h < c->kv_heads; ++h) {
      for (uint32_t b = 0; (b + 1) * c->block_tokens <= f->tokens[l]; ++b) {
        const uint8_t *record =
            (uint8_t *)f->arenas.pinned + ((uint64_t)(l * c->kv_heads + h) * f->blocks + b) * f->record_bytes;
        const uint64_t bytes = f->row_bytes * c->block_tokens, at = l * f->layer_bytes + h * f->head_bytes + b * bytes;
        expect(memcmp(record, f->keys + at, bytes) == 0 && memcmp(record + bytes, f->values + at, bytes) == 0,
               "slow memory: layer %u, head %u, block %u differs", l, h, b);
      }
    }
  }
}

static void random_step(fixture *f, test_random *r) {
  const uint32_t layer = random_below(r, f->config.layers), left = f->config.max_tokens - f->tokens[layer];
  switch (random_below(r, 8)) {
    case 0:
      fine(f, append(f, layer, random_below(r, left + 1)));
      return;
    case 1:
    case 2:
      fine(f, append(f, layer, left > 0));
      return;
    case 3: {
      const uint32_t tokens = f->tokens[layer] - random_below(r, f->tokens[layer] / 2 + 1);
      fine(f, kvsift_cuda_store_truncate(f->store, tokens, gpu_stream()));
      for (uint32_t l = 0; l < f->config.layers; ++l) f->tokens[l] = tokens < f->tokens[l] ? tokens : f->tokens[l];
      return;
    }
    case 4:
      if (f->tokens[layer] > 0) resolve_and_check(f, layer, r);
      return;
    default: break;
  }
  if (f->tokens[layer] == 0) return;
  kvsift_ticket ticket = 0;
  uint32_t done = 2;
  kvsift_selection s = pick_lists(f, layer, r);
  fine(f, kvsift_cuda_store_prefetch(f->store, layer, &s, gpu_stream(), &ticket));
  fine(f, kvsift_cuda_store_poll(f->store, ticket, &done));
  expect(done <= 1, "poll says %u", done);
  if (random_below(r, 3) == 0) fine(f, kvsift_cuda_store_wait(f->store, ticket, gpu_stream()));
}

static void contents_stay_whole(void **state) {
  (void)state;
  for (cases c = cases_begin(40); cases_next(&c);) {
    test_random r = {c.seed};
    cases_name("device store");
    fixture *f = fixture_new(pick_config(&r), &r);
    create(f);
    for (uint32_t i = 0; i < 60; ++i) random_step(f, &r);
    for (uint32_t l = 0; l < f->config.layers; ++l) {
      if (f->tokens[l] > 0) resolve_and_check(f, l, &r);
      assert_int_equal(kvsift_cuda_store_layer_tokens(f->store, l), f->tokens[l]);
    }
    check_slow(f);
    fixture_free(f);
  }
}

static kvsift_cuda_store_config small_config(void) {
  kvsift_cuda_store_config c = {.struct_size = sizeof c};
  assert_int_equal(kvsift_cuda_store_config_init(&c), KVSIFT_OK);
  c.layers = 1, c.kv_heads = 2, c.query_heads = 4, c.head_dim = 32, c.max_tokens = 400, c.fast_blocks = 12;
  c.local_tokens = 32, c.max_ranges = 64;
  return c;
}

static kvsift_selection block_of_each(fixture *f, uint32_t block) {
  for (uint32_t i = 0; i < f->config.kv_heads; ++i) {
    f->ranges[(size_t)i * f->stride] = (kvsift_range){block * 16, block * 16 + 16};
    f->counts[i] = 1;
  }
  return (kvsift_selection){.struct_size = sizeof(kvsift_selection),
                            .tokens = f->tokens[0],
                            .lists = f->config.kv_heads,
                            .block_tokens = 16,
                            .range_stride = f->stride,
                            .ranges = f->ranges,
                            .range_counts = f->counts};
}

static void counters_tell_what_happened(void **state) {
  (void)state;
  test_random r = {1};
  fixture *f = fixture_new(small_config(), &r);
  kvsift_store_stats stats = {.struct_size = sizeof stats};
  kvsift_cache cache = {.struct_size = sizeof cache};
  create(f);
  fine(f, append(f, 0, 390)); /* 24 whole blocks and an open one a head; 12 slots a head */
  gpu_wait();
  const uint64_t before = gpu_calls(NULL);
  kvsift_selection s = block_of_each(f, 3);
  fine(f, kvsift_cuda_store_prefetch(f->store, 0, &s, gpu_stream(), NULL));
  fine(f, kvsift_cuda_store_resolve(f->store, 0, &s, &cache, gpu_stream()));
  fine(f, kvsift_cuda_store_resolve(f->store, 0, &s, &cache, gpu_stream()));
  s = block_of_each(f, 5);
  fine(f, kvsift_cuda_store_resolve(f->store, 0, &s, &cache, gpu_stream()));
  fine(f, append(f, 0, 5));
  assert_int_equal(gpu_calls(NULL), before);
  fine(f, kvsift_cuda_store_get_stats(f->store, &stats));
  const uint64_t slot = f->record_bytes;
  assert_int_equal(stats.blocks_prefetched, 2);
  assert_int_equal(stats.prefetched, 2);
  assert_int_equal(stats.hits, 2);
  assert_int_equal(stats.late, 2);
  assert_int_equal(stats.bytes_read, 4 * slot);
  assert_int_equal(stats.bytes_written, 2 * 24 * slot);
  assert_int_equal(stats.prefetch_unplaced, 0);
  assert_int_equal(stats.evictions, 2 * (25 - 12) + 4);
  fixture_free(f);
}

static void misuse_is_answered(void **state) {
  (void)state;
  test_random r = {2};
  fixture *f = fixture_new(small_config(), &r);
  kvsift_cache cache = {.struct_size = sizeof cache};
  kvsift_cuda_store_config bad = f->config;
  kvsift_cuda_sizes sizes = {.struct_size = sizeof sizes};
  bad.type = KVSIFT_I8;
  assert_int_equal(kvsift_cuda_store_sizes(&bad, &sizes), KVSIFT_UNSUPPORTED);
  bad = f->config, bad.fast_blocks = 3;
  assert_int_equal(kvsift_cuda_store_sizes(&bad, &sizes), KVSIFT_INVALID_ARGUMENT);
  kvsift_cuda_arenas arenas = f->arenas;
  arenas.pinned_bytes -= 1;
  assert_int_equal(kvsift_cuda_store_create(&f->config, &arenas, gpu_stream(), &f->store), KVSIFT_ARENA_TOO_SMALL);
  assert_non_null(strstr(f->error.message, "pinned"));
  create(f);
  assert_int_equal(append(f, 0, 401), KVSIFT_CAPACITY);
  assert_int_equal(append(f, 1, 1), KVSIFT_INVALID_ARGUMENT);
  fine(f, append(f, 0, 320));
  f->tokens[0] = 300;
  assert_int_equal(append(f, 0, 1), KVSIFT_OUT_OF_ORDER);
  f->tokens[0] = 320;
  kvsift_selection s = block_of_each(f, 1);
  s.tokens = 321;
  assert_int_equal(kvsift_cuda_store_resolve(f->store, 0, &s, &cache, gpu_stream()), KVSIFT_OUT_OF_ORDER);
  s.tokens = 320, s.lists = 3;
  assert_int_equal(kvsift_cuda_store_resolve(f->store, 0, &s, &cache, gpu_stream()), KVSIFT_INVALID_ARGUMENT);
  s = block_of_each(f, 1);
  for (uint32_t i = 0; i < 2; ++i) f->ranges[(size_t)i * f->stride] = (kvsift_range){0, 320};
  assert_int_equal(kvsift_cuda_store_resolve(f->store, 0, &s, &cache, gpu_stream()), KVSIFT_CAPACITY);
  s = block_of_each(f, 2); /* and goes on after it */
  fine(f, kvsift_cuda_store_resolve(f->store, 0, &s, &cache, gpu_stream()));
  check_resident(f, 0, &cache);
  assert_int_equal(kvsift_cuda_store_wait(f->store, 1 << 16, gpu_stream()), KVSIFT_INVALID_ARGUMENT);
  fixture_free(f);
}

/* A step that calls everything; the first failure. */
static kvsift_status whole_step(fixture *f) {
  kvsift_cache cache = {.struct_size = sizeof cache};
  kvsift_ticket ticket = 0;
  uint32_t done;
  kvsift_status s = append(f, 0, 32);
  kvsift_selection first = block_of_each(f, 1);
  if (s == KVSIFT_OK) s = kvsift_cuda_store_prefetch(f->store, 0, &first, gpu_stream(), &ticket);
  if (s == KVSIFT_OK) s = kvsift_cuda_store_poll(f->store, ticket, &done);
  if (s == KVSIFT_OK) s = kvsift_cuda_store_wait(f->store, ticket, gpu_stream());
  for (uint32_t i = 0; i < 2; ++i) f->ranges[(size_t)i * f->stride] = (kvsift_range){32, 80}; /* a run */
  if (s == KVSIFT_OK) s = kvsift_cuda_store_resolve(f->store, 0, &first, &cache, gpu_stream());
  if (s == KVSIFT_OK) s = kvsift_cuda_store_truncate(f->store, f->tokens[0] - 20, gpu_stream());
  if (s == KVSIFT_OK) f->tokens[0] -= 20;
  if (s == KVSIFT_OK) s = kvsift_cuda_store_flush(f->store);
  return s;
}

static void a_failing_driver_loses_the_store(void **state) {
  (void)state;
  static const char *const functions[] = {"cuLaunchKernelEx",    "cuMemcpyDtoHAsync", "cuMemcpyHtoDAsync",
                                          "cuEventRecord",     "cuStreamWaitEvent", "cuEventQuery",
                                          "cuStreamSynchronize"};
  if (!gpu_is_mock()) {
    print_message("skipped: a real driver does not fail to order\n");
    skip();
  }
  for (uint32_t i = 0; i < sizeof functions / sizeof *functions; ++i) {
    for (uint32_t nth = 1; nth < 40; ++nth) {
      test_random r = {3};
      kvsift_cuda_store_config config = small_config();
      config.run_blocks = 2;
      fixture *f = fixture_new(config, &r);
      create(f);
      fine(f, append(f, 0, 300));
      gpu_wait();
      gpu_fail(functions[i], nth, CUDA_ERROR_LAUNCH_FAILED);
      const kvsift_status status = whole_step(f);
      gpu_fail(functions[i], 0, 0);
      if (status != KVSIFT_OK) {
        const char *sentence = kvsift_cuda_store_last_error(f->store);
        expect(status == KVSIFT_DEVICE && strstr(sentence, functions[i]) != NULL, "%s, call %u: %s", functions[i], nth,
               sentence);
        expect(whole_step(f) == KVSIFT_DEVICE, "%s: the store went on", functions[i]);
      }
      fixture_free(f);
      if (status == KVSIFT_OK) {
        expect(nth > 1, "%s was never called", functions[i]);
        break;
      }
    }
  }
}

static void a_failing_create_leaves_nothing(void **state) {
  (void)state;
  static const char *const functions[] = {
      "cuStreamCreate", "cuEventCreate",     "cuMemsetD8Async",  "cuMemHostGetDevicePointer",
      "cuEventRecord",  "cuStreamWaitEvent", "cuLibraryLoadData"};
  if (!gpu_is_mock()) {
    print_message("skipped: a real driver does not fail to order\n");
    skip();
  }
  test_random r = {4};
  fixture *f = fixture_new(small_config(), &r);
  for (uint32_t i = 0; i < sizeof functions / sizeof *functions; ++i) {
    gpu_fail(functions[i], 1, CUDA_ERROR_OUT_OF_MEMORY);
    const uint64_t streams = gpu_calls("cuStreamCreate") - gpu_calls("cuStreamDestroy");
    const kvsift_status status = kvsift_cuda_store_create(&f->config, &f->arenas, gpu_stream(), &f->store);
    expect(status == KVSIFT_DEVICE && f->store == NULL, "%s: create answered %d", functions[i], (int)status);
    expect(strstr(f->error.message, functions[i]) != NULL, "%s: %s", functions[i], f->error.message);
    const uint64_t left = gpu_calls("cuStreamCreate") - gpu_calls("cuStreamDestroy") - streams;
    expect(left == (i == 0), "%s: %d streams are left", functions[i], (int)left); /* the first is only asked for */
  }
  create(f);
  fixture_free(f);
}

/* A device policy attends to the store's slots as to a cache that is all there. */
static void attention_is_that_of_the_whole_cache(void **state) {
  (void)state;
  test_random r = {5};
  fixture *f = fixture_new(small_config(), &r);
  kvsift_policy_config c = {.struct_size = sizeof c};
  kvsift_cuda_sizes sizes = {.struct_size = sizeof sizes};
  kvsift_cuda_policy *policy = NULL;
  assert_int_equal(kvsift_policy_config_init(&c, KVSIFT_METHOD_PAGE_STATS), KVSIFT_OK);
  c.layers = 1, c.query_heads = 4, c.kv_heads = 2, c.head_dim = 32, c.max_tokens = 400, c.budget_tokens = 96,
  c.sink_tokens = 16;
  c.local_tokens = 32, c.dense_layers = 0, c.dense_tokens = KVSIFT_DENSE_OFF, c.grouping = KVSIFT_GROUP_MEAN,
  c.budget_share = 0;
  c.error = &f->error;
  expect(kvsift_cuda_policy_sizes(&c, &sizes) == KVSIFT_OK, "sizes: %s", f->error.message);
  kvsift_cuda_arenas a = {.struct_size = sizeof a, .device = gpu_new(sizes.device, NULL), .device_bytes = sizes.device,
                          .pinned = gpu_new_pinned(sizes.pinned), .pinned_bytes = sizes.pinned,
                          .host = aligned_alloc(64, sizes.host), .host_bytes = sizes.host};
  expect(kvsift_cuda_policy_create(&c, &a, gpu_stream(), &policy) == KVSIFT_OK, "create: %s", f->error.message);
  create(f);
#define MUST(call) \
  expect((call) == KVSIFT_OK, "%s%s", kvsift_cuda_last_error(policy), kvsift_cuda_store_last_error(f->store))
  float query[4 * 32], out[2][4 * 32];
  for (uint32_t i = 0; i < 4 * 32; ++i) query[i] = (float)random_below(&r, 200) / 100.0f - 1.0f;
  float *device_query = gpu_new(sizeof query, query), *device_out = gpu_new(2 * sizeof query, NULL);
  for (uint32_t step = 0; step < 20; ++step) {
    const uint32_t first = f->tokens[0], tokens = step == 0 ? 350 : 1;
    const kvsift_view keys = view_of(f, f->device_keys, 0, first), values = view_of(f, f->device_values, 0, first);
    MUST(append(f, 0, tokens));
    MUST(kvsift_cuda_observe_keys(policy, 0, NULL, first, tokens, &keys, &values, gpu_stream()));
    if (step > 0) {
      const kvsift_query q = {
          .struct_size = sizeof q, .tokens = f->tokens[0], .view = {.data = device_query, .head_stride = 128}};
      const kvsift_cache whole = {.struct_size = sizeof whole,
                                  .tokens = f->tokens[0],
                                  .keys = view_of(f, f->device_keys, 0, 0),
                                  .values = view_of(f, f->device_values, 0, 0)};
      kvsift_cuda_selection chosen = {.struct_size = sizeof chosen};
      kvsift_selection lists = {.struct_size = sizeof lists};
      kvsift_cache slots = {.struct_size = sizeof slots};
      MUST(kvsift_cuda_select_blocks(policy, 0, &q, &chosen, gpu_stream()));
      MUST(kvsift_cuda_store_receive(f->store, &chosen, gpu_stream(), &lists));
      MUST(kvsift_cuda_store_resolve(f->store, 0, &lists, &slots, gpu_stream()));
      MUST(kvsift_cuda_attend(policy, 0, &q, &slots, device_out, NULL, gpu_stream()));
      MUST(kvsift_cuda_attend(policy, 0, &q, &whole, device_out + 128, NULL, gpu_stream()));
      if (step % 2 == 0) MUST(kvsift_cuda_store_prefetch(f->store, 0, &lists, gpu_stream(), NULL));
      gpu_read(out, device_out, sizeof out);
      expect(memcmp(out[0], out[1], sizeof out[0]) == 0, "step %u: attention over the slots differs", step);
    }
    MUST(kvsift_cuda_advance(policy, tokens, gpu_stream()));
  }
  gpu_wait();
  kvsift_cuda_policy_destroy(policy);
  gpu_free(a.device), gpu_free_pinned(a.pinned), free(a.host), gpu_free(device_query), gpu_free(device_out);
  fixture_free(f);
}

/* What a device policy with verify_blocks left, by hand: two lists, of three missed blocks at most. */
static void missed_blocks_come_along(void **state) {
  (void)state;
  test_random r = {3};
  fixture *f = fixture_new(small_config(), &r);
  create(f);
  const kvsift_range ranges[] = {{0, 16}, {0, 48}};
  const uint32_t counts[] = {1, 1}, missed[] = {2, 7, 9, 4, 0, 0}, missed_counts[] = {3, 1};
  kvsift_cuda_selection from = {.struct_size = sizeof from};
  from.lists = (kvsift_selection){.struct_size = sizeof from.lists, .tokens = 390, .lists = 2, .block_tokens = 16,
                                  .range_stride = 1, .missed_stride = 3};
  from.lists.ranges = gpu_new(sizeof ranges, ranges);
  from.lists.range_counts = gpu_new(sizeof counts, counts);
  kvsift_selection to = {.struct_size = sizeof to};
  fine(f, kvsift_cuda_store_receive(f->store, &from, gpu_stream(), &to));
  assert_null(to.missed);
  assert_null(to.missed_counts);
  from.lists.missed = gpu_new(sizeof missed, missed);
  assert_int_equal(kvsift_cuda_store_receive(f->store, &from, gpu_stream(), &to), KVSIFT_INVALID_ARGUMENT);
  from.lists.missed_counts = gpu_new(sizeof missed_counts, missed_counts);
  fine(f, kvsift_cuda_store_receive(f->store, &from, gpu_stream(), &to));
  assert_int_equal(to.missed_stride, 3);
  assert_memory_equal(to.missed, missed, sizeof missed);
  assert_memory_equal(to.missed_counts, missed_counts, sizeof missed_counts);
  assert_memory_equal(to.ranges, ranges, sizeof ranges);
  assert_memory_equal(to.range_counts, counts, sizeof counts);
  from.lists.missed_stride = 65;
  assert_int_equal(kvsift_cuda_store_receive(f->store, &from, gpu_stream(), &to), KVSIFT_CAPACITY);
  assert_non_null(strstr(kvsift_cuda_store_last_error(f->store), "65 missed blocks"));
  gpu_free((void *)from.lists.ranges), gpu_free((void *)from.lists.range_counts);
  gpu_free((void *)from.lists.missed), gpu_free((void *)from.lists.missed_counts);
  fixture_free(f);
}

int main(void) {
  if (!gpu_open()) return 77;
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(contents_stay_whole),
      cmocka_unit_test(counters_tell_what_happened),
      cmocka_unit_test(misuse_is_answered),
      cmocka_unit_test(a_failing_driver_loses_the_store),
      cmocka_unit_test(a_failing_create_leaves_nothing),
      cmocka_unit_test(attention_is_that_of_the_whole_cache),
      cmocka_unit_test(missed_blocks_come_along),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
