/* The store in front of pinned memory: contents byte for byte over random sequences, late caps, and misuse. */
#include <stdlib.h>
#include <string.h>

#include "device_store.h"

static kvsift_cuda_store_config pick_config(test_random *r) {
  kvsift_cuda_store_config c = {.struct_size = sizeof c};
  assert_int_equal(kvsift_cuda_store_config_init(&c), KVSIFT_OK);
  c.layers = 1 + random_below(r, 2), c.kv_heads = 1 + random_below(r, 3),
  c.query_heads = c.kv_heads * (1 + random_below(r, 2));
  c.head_dim = 8 * (1 + random_below(r, 4)) - random_below(r, 2), c.block_tokens = 1u << random_below(r, 5);
  c.max_tokens = c.block_tokens * (6 + random_below(r, 20)) - random_below(r, c.block_tokens);
  c.type = c.storage = (kvsift_type)random_below(r, 3);
  c.sink_tokens = random_below(r, c.block_tokens + 1), c.local_tokens = random_below(r, 2 * c.block_tokens + 1);
  c.fast_blocks = 8 + random_below(r, 5), c.resident_layers = random_below(r, 3) == 0;
  c.run_blocks = random_below(r, 4), c.max_ranges = c.max_tokens;
  c.checksums = random_below(r, 2), c.late_blocks = random_below(r, 2) == 0 ? random_below(r, 4) : KVSIFT_STORE_NO_LIMIT;
  return c;
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

static bool names(const kvsift_selection *s, uint32_t list, uint32_t token) {
  for (uint32_t r = 0; r < s->range_counts[list]; ++r) {
    const kvsift_range range = s->ranges[(size_t)list * s->range_stride + r];
    if (range.begin <= token && token < range.end) return true;
  }
  return false;
}

/* The table has what the selection still names of what was asked for, and nothing of what it does not. */
static void check_selected(const fixture *f, const kvsift_selection *s, const kvsift_cache *cache) {
  const uint32_t group = s->lists / f->config.kv_heads;
  for (uint32_t i = 0; i < s->lists; ++i) {
    const kvsift_range range = f->ranges[(size_t)i * f->stride];
    for (uint32_t t = range.begin; t < range.end; ++t) {
      const bool here = f->table[i / group * cache->block_table_stride + t / f->config.block_tokens] >= 0;
      expect(here == names(s, i, t), "list %u: token %u is %s, the table says otherwise", i, t, here ? "left out" : "named");
      expect(here || f->config.late_blocks != KVSIFT_STORE_NO_LIMIT, "list %u: token %u is not there", i, t);
    }
  }
}

/* What a cap leaves out, which is fetched behind the stream, would come while we look. */
static void let_come(fixture *f) {
  if (!gpu_is_in_turn()) fine(f, kvsift_cuda_store_flush(f->store));
}

static void resolve_and_check(fixture *f, uint32_t layer, test_random *r) {
  kvsift_selection s = pick_lists(f, layer, r);
  kvsift_cache cache = {.struct_size = sizeof cache};
  fine(f, kvsift_cuda_store_resolve(f->store, layer, &s, &cache, gpu_stream()));
  const bool before = random_below(r, 2) == 0;
  if (before) fine(f, kvsift_cuda_store_flush(f->store));
  else let_come(f);
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
  bad.type = KVSIFT_F32;
  assert_int_equal(kvsift_cuda_store_sizes(&bad, &sizes), KVSIFT_INVALID_ARGUMENT);
  bad = f->config, bad.checksums = 2;
  assert_int_equal(kvsift_cuda_store_sizes(&bad, &sizes), KVSIFT_INVALID_ARGUMENT);
  assert_non_null(strstr(f->error.message, "checksums is 2"));
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
  s.tail = KVSIFT_TAIL_BALANCE;
  assert_int_equal(kvsift_cuda_store_resolve(f->store, 0, &s, &cache, gpu_stream()), KVSIFT_UNSUPPORTED);
  s.tail = KVSIFT_TAIL_NONE;
  s.tokens = 320, s.lists = 3;
  assert_int_equal(kvsift_cuda_store_resolve(f->store, 0, &s, &cache, gpu_stream()), KVSIFT_INVALID_ARGUMENT);
  s = block_of_each(f, 1), s.block_tokens = 0;
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

/* 25 blocks a head, of which the 12 newest, and block 0, are there. */
static void late_caps_leave_out(void **state) {
  (void)state;
  test_random r = {7};
  kvsift_cuda_store_config config = small_config();
  config.late_blocks = 1, config.max_ranges = 2;
  fixture *f = fixture_new(config, &r);
  kvsift_store_stats stats = {.struct_size = sizeof stats};
  kvsift_cache cache = {.struct_size = sizeof cache};
  create(f);
  fine(f, append(f, 0, 390));
  kvsift_selection s = block_of_each(f, 3);
  fine(f, kvsift_cuda_store_resolve(f->store, 0, &s, &cache, gpu_stream()));
  assert_true(s.ranges != f->ranges);
  assert_int_equal(s.range_counts[0], 1);
  assert_int_equal(s.block_counts[0], 1);
  assert_int_equal(s.blocks[0], 3);
  assert_int_equal(s.range_counts[1], 0);
  let_come(f);
  check_resident(f, 0, &cache);
  check_selected(f, &s, &cache);
  /* What was left out has come by the next resolve, which leaves nothing out: the lists stay the caller's. */
  s = block_of_each(f, 3);
  fine(f, kvsift_cuda_store_resolve(f->store, 0, &s, &cache, gpu_stream()));
  assert_true(s.ranges == f->ranges);
  check_resident(f, 0, &cache);
  check_selected(f, &s, &cache);
  /* A prefetch is waited for, whatever the cap; pinned blocks come in time. */
  s = block_of_each(f, 4);
  fine(f, kvsift_cuda_store_prefetch(f->store, 0, &s, gpu_stream(), NULL));
  fine(f, kvsift_cuda_store_resolve(f->store, 0, &s, &cache, gpu_stream()));
  assert_true(s.ranges == f->ranges);
  check_resident(f, 0, &cache);
  check_selected(f, &s, &cache);
  fine(f, kvsift_cuda_store_get_stats(f->store, &stats));
  assert_int_equal(stats.late, 1);
  assert_int_equal(stats.dropped, 1);
  assert_int_equal(stats.hits, 1);
  assert_int_equal(stats.prefetched, 3);
  assert_int_equal(stats.blocks_prefetched, 3);
  /* Three ranges do not fit in max_ranges 2. */
  s = block_of_each(f, 6), f->counts[0] = 3;
  for (uint32_t i = 0; i < 3; ++i) f->ranges[i] = (kvsift_range){16 * (2 * i + 18), 16 * (2 * i + 18) + 8};
  f->ranges[f->stride] = (kvsift_range){96, 128};
  assert_int_equal(kvsift_cuda_store_resolve(f->store, 0, &s, &cache, gpu_stream()), KVSIFT_CAPACITY);
  assert_non_null(strstr(kvsift_cuda_store_last_error(f->store), "max_ranges 2"));
  assert_true(s.ranges == f->ranges);
  fixture_free(f);
}

/* Blocks that a truncate or an append meets while they are fetched behind a late cap. */
static void what_is_fetched_behind_can_be_truncated(void **state) {
  (void)state;
  test_random r = {10};
  kvsift_cuda_store_config config = small_config();
  config.late_blocks = 0;
  fixture *f = fixture_new(config, &r);
  kvsift_store_stats before = {.struct_size = sizeof before}, after = before;
  kvsift_cache cache = {.struct_size = sizeof cache};
  create(f);
  fine(f, append(f, 0, 390));
  kvsift_selection s = block_of_each(f, 8);
  fine(f, kvsift_cuda_store_resolve(f->store, 0, &s, &cache, gpu_stream()));
  assert_int_equal(s.range_counts[0], 0);
  fine(f, kvsift_cuda_store_truncate(f->store, 8 * 16 + 5, gpu_stream())); /* now the block that takes rows */
  f->tokens[0] = 8 * 16 + 5;
  for (uint32_t block = 7; block <= 8; ++block) { /* both pinned now: the cap is not theirs */
    s = block_of_each(f, block);
    f->ranges[0].end = f->ranges[f->stride].end = block == 8 ? f->tokens[0] : 128;
    fine(f, kvsift_cuda_store_resolve(f->store, 0, &s, &cache, gpu_stream()));
    assert_true(s.ranges == f->ranges);
    check_resident(f, 0, &cache);
    check_selected(f, &s, &cache);
  }
  fine(f, append(f, 0, 390 - f->tokens[0]));
  s = block_of_each(f, 3);
  fine(f, kvsift_cuda_store_resolve(f->store, 0, &s, &cache, gpu_stream()));
  let_come(f);
  check_resident(f, 0, &cache);
  /* One that is forgotten leaves its slot: all of them are free, and there is one for each block that comes. */
  s = block_of_each(f, 12);
  fine(f, kvsift_cuda_store_resolve(f->store, 0, &s, &cache, gpu_stream()));
  assert_int_equal(s.range_counts[0], 0);
  fine(f, kvsift_cuda_store_truncate(f->store, 0, gpu_stream()));
  f->tokens[0] = 0;
  fine(f, kvsift_cuda_store_get_stats(f->store, &before));
  fine(f, append(f, 0, 12 * 16));
  fine(f, kvsift_cuda_store_get_stats(f->store, &after));
  assert_int_equal(after.evictions, before.evictions);
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
      cmocka_unit_test(late_caps_leave_out),
      cmocka_unit_test(what_is_fetched_behind_can_be_truncated),
      cmocka_unit_test(missed_blocks_come_along),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
