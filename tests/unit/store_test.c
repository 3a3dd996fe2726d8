/* The store's rules one by one: arena, slots, pinning, tickets, caps, storage, what it says of itself. */
#include "fake_device.h"
#include "guarded.h"
#include "store_fixture.h"

#include <signal.h>

static kvsift_status size_of(const kvsift_store_config *config) {
  uint64_t bytes = 0, alignment = 0;
  return kvsift_store_arena_size(config, &bytes, &alignment);
}

static void test_configs(void **state) {
  (void)state;
  const struct {
    size_t field;
    uint32_t value;
    const char *name;
  } wrong[] = {
#define WRONG(field, value) {offsetof(kvsift_store_config, field), value, #field}
      WRONG(layers, 0),         WRONG(layers, 1025),       WRONG(kv_heads, 0),      WRONG(query_heads, 3),
      WRONG(head_dim, 0),       WRONG(head_dim, 257),      WRONG(max_tokens, 0),    WRONG(max_tokens, 1u << 25),
      WRONG(block_tokens, 0),   WRONG(block_tokens, 12),   WRONG(block_tokens, 512), WRONG(type, 4),
      WRONG(storage, 1u << 31), WRONG(storage, KVSIFT_F32), WRONG(fast_blocks, 0),  WRONG(fast_blocks, 4),
      WRONG(resident_layers, 3), WRONG(alignment, 32),     WRONG(alignment, 4000),  WRONG(threads, 0),
      WRONG(threads, 65),       WRONG(depth, 0),           WRONG(depth, 257),       WRONG(checksums, 2),
      WRONG(io, 3),             WRONG(direct, 2),          WRONG(verify, 2),        WRONG(timing, 2),
      WRONG(trace_events, UINT32_MAX), WRONG(backend, 3),  WRONG(io, KVSIFT_STORE_IO_URING),
#undef WRONG
  };
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; ++i) {
    fixture f;
    fixture_config(&f, KVSIFT_STORE_HOST);
    memcpy((char *)&f.config + wrong[i].field, &wrong[i].value, sizeof wrong[i].value);
    assert_int_equal(size_of(&f.config), KVSIFT_INVALID_ARGUMENT);
    if (strstr(f.error.message, wrong[i].name) == NULL) fail_msg("%s: \"%s\"", wrong[i].name, f.error.message);
  }
  kvsift_store_config small = {.struct_size = 4};
  assert_int_equal(kvsift_store_config_init(&small, 0), KVSIFT_INVALID_STRUCT_SIZE);
  assert_int_equal(size_of(&small), KVSIFT_INVALID_STRUCT_SIZE);
  assert_int_equal(kvsift_store_config_init(NULL, 0), KVSIFT_INVALID_ARGUMENT);
}

/* The size is exact: one byte less is refused, and nothing past the last byte is touched. */
static void test_arena(void **state) {
  (void)state;
  fixture f;
  fixture_config(&f, KVSIFT_STORE_HOST);
  f.config.late_blocks = 1;
  f.config.trace_events = 8;
  fixture_arena(&f);
  void *guarded = guarded_new(f.arena_bytes);
  for (uint64_t less = 1; less <= f.arena_bytes; less = less * 3 + 1) {
    assert_int_equal(kvsift_store_create(&f.config, guarded, f.arena_bytes - less, &f.store), KVSIFT_ARENA_TOO_SMALL);
    assert_non_null(strstr(f.error.message, "does not fit"));
    assert_null(f.store);
  }
  assert_int_equal(kvsift_store_create(&f.config, (char *)guarded + 8, f.arena_bytes, &f.store), KVSIFT_MISALIGNED);
  assert_int_equal(kvsift_store_create(&f.config, guarded, f.arena_bytes, &f.store), KVSIFT_OK);
  assert_int_equal(fixture_info(&f).arena_bytes, f.arena_bytes);
  fixture_append(&f, 0, f.config.max_tokens);
  check_everything(&f, f.config.max_tokens);
  assert_int_equal(kvsift_store_close(f.store), KVSIFT_OK);
  assert_int_equal(kvsift_store_close(f.store), KVSIFT_INVALID_ARGUMENT);
  f.store = NULL;
  guarded_free(guarded, f.arena_bytes);
  fixture_end(&f);
}

static int resident(const kvsift_cache *cache, uint32_t head, uint32_t block) {
  return cache->block_table[(size_t)head * cache->block_table_stride + block] >= 0;
}

/* 64 blocks a head, 16 in fast memory: whatever is looked at, the sink's and the last three stay. */
static void test_pinned(void **state) {
  (void)state;
  fixture f;
  fixture_lists s;
  fixture_config(&f, KVSIFT_STORE_HOST);
  fixture_create(&f);
  fixture_append(&f, 0, 250);
  for (uint32_t b = 4; b < 50; b += 3) {
    kvsift_cache cache = {.struct_size = sizeof cache};
    lists_init(&s, &f, 250, 0);
    lists_add_all(&s, 4 * b, 4 * b + 12);
    assert_int_equal(kvsift_store_resolve(f.store, 1, &s.selection, &cache), KVSIFT_OK);
    check_selected(&f, 1, &s.selection, &cache);
    for (uint32_t h = 0; h < 2; ++h) {
      assert_true(resident(&cache, h, 0));
      for (uint32_t last = 242 / 4; last < 63; ++last) assert_true(resident(&cache, h, last));
    }
  }
  fixture_end(&f);
}

static int signals;
static void count_signal(int number) {
  (void)number;
  ++signals;
}

/* A signal for the process waits for the thread that blocks it, rather than interrupt a worker. */
static void test_signals(void **state) {
  (void)state;
  fixture f;
  sigset_t set, before, now;
  const struct timespec soon = {5, 0};
  const struct sigaction action = {.sa_handler = count_signal};
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  assert_int_equal(sigaction(SIGUSR1, &action, NULL), 0);
  assert_int_equal(pthread_sigmask(SIG_UNBLOCK, &set, &before), 0);
  fixture_config(&f, KVSIFT_STORE_HOST);
  fixture_create(&f);
  assert_int_equal(pthread_sigmask(SIG_BLOCK, &set, &now), 0);
  assert_int_equal(sigismember(&now, SIGUSR1), 0);
  assert_int_equal(kill(getpid(), SIGUSR1), 0);
  fixture_append(&f, 0, 64);
  check_everything(&f, 64);
  fake_sleep_until(fake_now() + 50000000); /* a worker would take it meanwhile */
  assert_int_equal(sigtimedwait(&set, NULL, &soon), SIGUSR1);
  assert_int_equal(signals, 0);
  assert_int_equal(pthread_sigmask(SIG_SETMASK, &before, NULL), 0);
  fixture_end(&f);
}

/* Counts of a fixed course: fetched late, found again, fetched ahead, evicted in LRU order. */
static void test_lru(void **state) {
  (void)state;
  fixture f;
  fixture_lists s;
  kvsift_ticket ticket;
  fixture_config(&f, KVSIFT_STORE_HOST);
  f.config.kv_heads = f.config.query_heads = f.config.layers = 1;
  f.config.sink_tokens = f.config.local_tokens = 0;
  f.config.fast_blocks = 4;
  fixture_create(&f);
  fixture_append(&f, 0, 64);
  assert_int_equal(kvsift_store_flush(f.store), KVSIFT_OK);
  for (uint32_t b = 0; b < 4; ++b) { /* pushes out what append left: blocks 12 .. 15 */
    lists_init(&s, &f, 64, 0);
    lists_add(&s, 0, 4 * b, 4 * b + 4);
    assert_int_equal(fixture_resolve(&f, 0, &s), KVSIFT_OK);
  }
  kvsift_store_stats a = fixture_stats(&f), b;
  assert_int_equal(a.late, 4);
  assert_int_equal(a.hits + a.prefetched, 0);
  lists_init(&s, &f, 64, 0);
  lists_add(&s, 0, 0, 2); /* block 0 becomes the newest, block 1 the oldest */
  assert_int_equal(fixture_resolve(&f, 0, &s), KVSIFT_OK);
  lists_init(&s, &f, 64, 0);
  lists_add(&s, 0, 33, 34);
  assert_int_equal(kvsift_store_prefetch(f.store, 0, &s.selection, &ticket), KVSIFT_OK);
  assert_int_equal(kvsift_store_wait(f.store, ticket), KVSIFT_OK);
  lists_add(&s, 0, 36, 37);
  lists_add(&s, 0, 0 + 40, 41);
  assert_int_equal(fixture_resolve(&f, 0, &s), KVSIFT_OK); /* 8 was prefetched, 9 and 10 push out 2 and 3 */
  b = fixture_stats(&f);
  assert_int_equal(b.hits - a.hits, 1);
  assert_int_equal(b.prefetched, 1);
  assert_int_equal(b.blocks_prefetched, 1);
  assert_int_equal(b.late - a.late, 2);
  assert_int_equal(b.evictions - a.evictions, 3);
  assert_int_equal(b.bytes_read - a.bytes_read, 3 * fixture_info(&f).slot_bytes);
  lists_init(&s, &f, 64, 0);
  lists_add(&s, 0, 0, 1);
  assert_int_equal(fixture_resolve(&f, 0, &s), KVSIFT_OK);
  assert_int_equal(fixture_stats(&f).late, b.late); /* block 0 is still there */
  fixture_end(&f);
}

/* Blocks that lie together are read in one go, up to 16. */
static void test_coalescing(void **state) {
  (void)state;
  fixture f;
  fixture_lists s;
  fixture_config(&f, KVSIFT_STORE_HOST);
  f.config.fast_blocks = 40;
  fixture_create(&f);
  fixture_append(&f, 0, 256);
  const kvsift_store_stats a = fixture_stats(&f);
  lists_init(&s, &f, 256, 0);
  lists_add(&s, 0, 20, 40);  /* 5 blocks */
  lists_add(&s, 0, 48, 60);  /* 3 */
  lists_add(&s, 1, 8, 80);   /* 18: two transfers */
  assert_int_equal(fixture_resolve(&f, 0, &s), KVSIFT_OK);
  const kvsift_store_stats b = fixture_stats(&f);
  assert_int_equal(b.late - a.late, 26);
  assert_int_equal(b.reads - a.reads, 4);
  fixture_end(&f);
}

static void test_tickets(void **state) {
  (void)state;
  fixture f;
  fake_device device;
  fixture_lists s;
  kvsift_ticket first, second;
  uint32_t done = 2;
  fixture_config(&f, KVSIFT_STORE_CUSTOM);
  fake_open(&device, 1u << 20);
  const kvsift_store_device calls = fake_calls(&device);
  f.config.device = &calls;
  fixture_create(&f);
  fixture_append(&f, 0, 200);
  assert_int_equal(kvsift_store_flush(f.store), KVSIFT_OK);
  device.bandwidth = 1u << 30;
  device.latency_ns = 100000000;
  lists_init(&s, &f, 200, 1);
  lists_add_all(&s, 16, 24);
  assert_int_equal(kvsift_store_prefetch(f.store, 0, &s.selection, &first), KVSIFT_OK);
  assert_int_equal(kvsift_store_prefetch(f.store, 0, &s.selection, &second), KVSIFT_OK);
  assert_true(first != second && first != 0);
  assert_int_equal(kvsift_store_poll(f.store, first, &done), KVSIFT_OK);
  assert_int_equal(done, 0);
  assert_int_equal(kvsift_store_wait(f.store, second), KVSIFT_OK);
  assert_int_equal(kvsift_store_poll(f.store, first, &done), KVSIFT_OK);
  assert_int_equal(done, 1);
  assert_int_equal(fixture_stats(&f).blocks_prefetched, 4);
  assert_int_equal(kvsift_store_wait(f.store, second + (1u << 16)), KVSIFT_INVALID_ARGUMENT);
  assert_int_equal(kvsift_store_wait(f.store, 0), KVSIFT_INVALID_ARGUMENT);
  fixture_end(&f);
  fake_close(&device);
}

/* Only two blocks may come late; the lists that come back say what is left, and all of that is there. */
static void test_late_blocks(void **state) {
  (void)state;
  for (int per_query_head = 0; per_query_head < 2; ++per_query_head) {
    fixture f;
    fixture_lists s;
    kvsift_cache cache = {.struct_size = sizeof cache};
    fixture_config(&f, KVSIFT_STORE_HOST);
    f.config.late_blocks = 2;
    fixture_create(&f);
    fixture_append(&f, 0, 256);
    lists_init(&s, &f, 256, per_query_head);
    s.selection.everything = 1;
    lists_add(&s, 0, 0, 30);   /* the sink's block is there; 1 and 2 come, 3 .. 7 do not */
    lists_add(&s, 0, 250, 256);
    assert_int_equal(kvsift_store_resolve(f.store, 0, &s.selection, &cache), KVSIFT_OK);
    check_selected(&f, 0, &s.selection, &cache);
    assert_int_equal(s.selection.everything, 0);
    assert_int_equal(s.selection.range_counts[0], 2);
    assert_int_equal(s.selection.ranges[0].begin, 0);
    assert_int_equal(s.selection.ranges[0].end, 12);
    assert_int_equal(s.selection.ranges[1].begin, 250);
    assert_int_equal(s.selection.ranges[1].end, 256);
    const uint32_t blocks[] = {0, 1, 2, 62, 63};
    assert_int_equal(s.selection.block_counts[0], 5);
    assert_memory_equal(s.selection.blocks, blocks, sizeof blocks);
    assert_int_equal(s.selection.range_counts[1], 0);
    assert_int_equal(fixture_stats(&f).dropped, 5);
    fixture_end(&f);
  }
}

/* A device that takes 200 ms cannot hold up a resolve that may wait 2 ms; what arrives later serves the next one. */
static void test_late_time(void **state) {
  (void)state;
  fixture f;
  fake_device device;
  fixture_lists s;
  kvsift_cache cache = {.struct_size = sizeof cache};
  fixture_config(&f, KVSIFT_STORE_CUSTOM);
  fake_open(&device, 1u << 20);
  const kvsift_store_device calls = fake_calls(&device);
  f.config.device = &calls;
  f.config.late_microseconds = 2000;
  fixture_create(&f);
  fixture_append(&f, 0, 256);
  assert_int_equal(kvsift_store_flush(f.store), KVSIFT_OK);
  device.bandwidth = 1u << 30;
  device.latency_ns = 200000000;
  lists_init(&s, &f, 256, 0);
  lists_add_all(&s, 40, 48);
  lists_add_all(&s, 252, 256);
  const uint64_t begin = fake_now();
  assert_int_equal(kvsift_store_resolve(f.store, 0, &s.selection, &cache), KVSIFT_OK);
  assert_true(fake_now() - begin < 150000000);
  assert_int_equal(s.selection.range_counts[0], 1);
  assert_int_equal(s.selection.ranges[0].begin, 252);
  assert_int_equal(fixture_stats(&f).dropped, 4);
  fake_sleep_until(fake_now() + 600000000);
  lists_init(&s, &f, 256, 0);
  lists_add_all(&s, 40, 48);
  assert_int_equal(fixture_resolve(&f, 0, &s), KVSIFT_OK);
  assert_int_equal(s.selection.range_counts[0], 1);
  assert_int_equal(s.selection.ranges[0].begin, 40);
  fixture_end(&f);
  fake_close(&device);
}

static void test_capacity(void **state) {
  (void)state;
  fixture f;
  fixture_lists s;
  fixture_config(&f, KVSIFT_STORE_HOST);
  f.config.resident_layers = 1;
  fixture_create(&f);
  fixture_append(&f, 0, 256);
  lists_init(&s, &f, 256, 0);
  lists_add_all(&s, 0, 256);
  s.selection.everything = 1;
  assert_int_equal(fixture_resolve(&f, 0, &s), KVSIFT_OK);
  assert_int_equal(fixture_stats(&f).late, 0);
  assert_int_equal(fixture_resolve(&f, 1, &s), KVSIFT_CAPACITY);
  assert_non_null(strstr(kvsift_store_last_error(f.store), "layer 1"));
  lists_init(&s, &f, 256, 0);
  lists_add_all(&s, 100, 120);
  assert_int_equal(fixture_resolve(&f, 1, &s), KVSIFT_OK);
  fixture_end(&f);
}

static void test_arguments(void **state) {
  (void)state;
  fixture f;
  fixture_lists s;
  kvsift_cache cache = {.struct_size = sizeof cache};
  uint16_t row[64] = {0};
  kvsift_view view = {.data = row, .type = KVSIFT_F16, .token_stride = 32, .head_stride = 32};
  fixture_config(&f, KVSIFT_STORE_HOST);
  fixture_create(&f);
  fixture_append(&f, 0, 20);
  assert_int_equal(kvsift_store_append(f.store, 0, 19, 1, &view, &view), KVSIFT_OUT_OF_ORDER);
  assert_int_equal(kvsift_store_append(f.store, 2, 20, 1, &view, &view), KVSIFT_INVALID_ARGUMENT);
  assert_int_equal(kvsift_store_append(f.store, 0, 20, 237, &view, &view), KVSIFT_CAPACITY);
  assert_int_equal(kvsift_store_append(f.store, 0, 20, 1, &view, NULL), KVSIFT_INVALID_ARGUMENT);
  view.type = KVSIFT_F32;
  assert_int_equal(kvsift_store_append(f.store, 0, 20, 1, &view, &view), KVSIFT_INVALID_ARGUMENT);
  view.type = KVSIFT_F16;
  view.token_stride = 31;
  assert_int_equal(kvsift_store_append(f.store, 0, 20, 1, &view, &view), KVSIFT_MISALIGNED);
  lists_init(&s, &f, 21, 0);
  assert_int_equal(kvsift_store_resolve(f.store, 0, &s.selection, &cache), KVSIFT_OUT_OF_ORDER);
  const kvsift_range bad[][2] = {{{4, 4}, {5, 6}}, {{4, 8}, {6, 9}}, {{4, 8}, {9, 21}}, {{9, 12}, {1, 2}}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; ++i) {
    lists_init(&s, &f, 20, 0);
    memcpy(s.ranges[1], bad[i], sizeof bad[i]);
    s.counts[1] = 2;
    assert_int_equal(kvsift_store_resolve(f.store, 0, &s.selection, &cache), KVSIFT_INVALID_ARGUMENT);
    assert_int_equal(kvsift_store_prefetch(f.store, 0, &s.selection, NULL), KVSIFT_INVALID_ARGUMENT);
    assert_non_null(strstr(kvsift_store_last_error(f.store), "list 1"));
  }
  lists_init(&s, &f, 20, 0);
  s.selection.lists = 3;
  assert_int_equal(kvsift_store_resolve(f.store, 0, &s.selection, &cache), KVSIFT_INVALID_ARGUMENT);
  assert_int_equal(kvsift_store_read(f.store, 0, 2, 0, 1, row, row, NULL, NULL), KVSIFT_INVALID_ARGUMENT);
  assert_int_equal(kvsift_store_read(f.store, 0, 0, 20, 1, row, row, NULL, NULL), KVSIFT_INVALID_ARGUMENT);
  assert_int_equal(kvsift_store_flush(NULL), KVSIFT_INVALID_ARGUMENT);
  check_everything(&f, 20);
  fixture_end(&f);
}

/* float32 in, int8 kept: within half a step of each row's scale; NaN is refused and leaves the store as it was. */
static void test_int8(void **state) {
  (void)state;
  fixture f;
  float rows[2][40][16], key_scales[40], value_scales[40];
  int8_t keys[40][16], values[40][16];
  fixture_config(&f, KVSIFT_STORE_HOST);
  f.config.type = KVSIFT_F32;
  f.config.storage = KVSIFT_I8;
  f.config.kv_heads = f.config.query_heads = f.config.layers = 1;
  fixture_create(&f);
  for (uint32_t i = 0; i < 2 * 40 * 16; ++i) {
    rows[i / 640][i / 16 % 40][i % 16] = ((float)fixture_element(0, 0, 0, i, 0, 0) - 15800.0f) * (float)(i / 16 % 40);
  }
  kvsift_view view = {.data = rows[0], .type = KVSIFT_F32, .token_stride = 64, .head_stride = 0};
  kvsift_view other = view;
  other.data = rows[1];
  const float kept = rows[1][39][15];
  memset(&rows[1][39][15], 0xff, 4);
  assert_int_equal(kvsift_store_append(f.store, 0, 0, 40, &view, &other), KVSIFT_NOT_FINITE);
  assert_non_null(strstr(kvsift_store_last_error(f.store), "token 39"));
  assert_int_equal(kvsift_store_layer_tokens(f.store, 0), 0);
  rows[1][39][15] = kept;
  assert_int_equal(kvsift_store_append(f.store, 0, 0, 40, &view, &other), KVSIFT_OK);
  assert_int_equal(kvsift_store_read(f.store, 0, 0, 0, 40, keys, values, key_scales, value_scales), KVSIFT_OK);
  for (uint32_t t = 0; t < 40; ++t) {
    for (uint32_t i = 0; i < 16; ++i) {
      const float key = (float)keys[t][i] * key_scales[t], value = (float)values[t][i] * value_scales[t];
      assert_true(key - rows[0][t][i] <= key_scales[t] * 0.501f && rows[0][t][i] - key <= key_scales[t] * 0.501f);
      assert_true(value - rows[1][t][i] <= value_scales[t] * 0.501f && rows[1][t][i] - value <= value_scales[t] * 0.501f);
    }
  }
  fixture_lists s;
  kvsift_cache cache = {.struct_size = sizeof cache};
  lists_init(&s, &f, 40, 0);
  lists_add(&s, 0, 4, 9);
  assert_int_equal(kvsift_store_resolve(f.store, 0, &s.selection, &cache), KVSIFT_OK);
  for (uint32_t t = 4; t < 9; ++t) {
    const int32_t page = cache.block_table[t / 4];
    const char *scale = (const char *)cache.values.scales + (uint64_t)page * cache.values.scale_page_stride +
                        (t % 4) * cache.values.scale_token_stride;
    assert_memory_equal(scale, value_scales + t, sizeof(float));
    assert_memory_equal((const char *)cache.values.data + (uint64_t)page * cache.values.page_stride +
                            (t % 4) * cache.values.token_stride, values[t], 16);
  }
  fixture_end(&f);
}

static void test_trace(void **state) {
  (void)state;
  fixture f;
  fixture_lists s;
  kvsift_store_event events[256];
  uint32_t count = 0, reads = 0, writes = 0, resolves = 0;
  fixture_config(&f, KVSIFT_STORE_HOST);
  f.config.trace_events = 256;
  fixture_create(&f);
  fixture_append(&f, 0, 64);
  assert_int_equal(kvsift_store_flush(f.store), KVSIFT_OK);
  lists_init(&s, &f, 64, 0);
  lists_add_all(&s, 8, 16);
  assert_int_equal(fixture_resolve(&f, 1, &s), KVSIFT_OK);
  assert_int_equal(kvsift_store_read_trace(f.store, events, 256, &count), KVSIFT_OK);
  for (uint32_t i = 0; i < count; ++i) {
    assert_true(events[i].end_ns >= events[i].begin_ns);
    reads += events[i].kind == KVSIFT_STORE_EVENT_READ ? events[i].blocks : 0;
    writes += events[i].kind == KVSIFT_STORE_EVENT_WRITE ? events[i].blocks : 0;
    resolves += events[i].kind == KVSIFT_STORE_EVENT_RESOLVE;
    if (events[i].kind == KVSIFT_STORE_EVENT_READ) assert_int_equal(events[i].layer, 1);
  }
  assert_int_equal(reads, fixture_stats(&f).late);
  assert_true(writes > 0);
  assert_int_equal(resolves, 1);
  assert_int_equal(kvsift_store_flush(f.store), KVSIFT_OK);
  assert_int_equal(kvsift_store_read_trace(f.store, events, 256, &count), KVSIFT_OK);
  assert_int_equal(kvsift_store_read_trace(f.store, events, 256, &count), KVSIFT_OK);
  assert_int_equal(count, 0);
  fixture_end(&f);
}

/* Closed in the middle of a block, opened again: whole blocks are there, and another configuration is refused by name. */
static void test_reopen(void **state) {
  (void)state;
  fixture f;
  fixture_config(&f, KVSIFT_STORE_FILE);
  fixture_create(&f);
  fixture_append(&f, 0, 101);
  fixture_reopen(&f);
  assert_int_equal(fixture_info(&f).tokens, 100);
  assert_int_equal(fixture_info(&f).durable_tokens, 100);
  check_everything(&f, 100);
  fixture_append(&f, 100, 56);
  check_everything(&f, 156);
  const struct {
    size_t field;
    uint32_t value;
    const char *name;
  } other[] = {{offsetof(kvsift_store_config, layers), 1, "layers"},
               {offsetof(kvsift_store_config, head_dim), 8, "head_dim"},
               {offsetof(kvsift_store_config, block_tokens), 8, "block_tokens"},
               {offsetof(kvsift_store_config, checksums), 0, "checksums"}};
  assert_int_equal(kvsift_store_close(f.store), KVSIFT_OK);
  for (size_t i = 0; i < sizeof other / sizeof *other; ++i) {
    kvsift_store_config config = f.config;
    memcpy((char *)&config + other[i].field, &other[i].value, 4);
    assert_int_equal(kvsift_store_open(&config, f.arena, f.arena_bytes, &f.store), KVSIFT_CONFIG_MISMATCH);
    assert_non_null(strstr(f.error.message, other[i].name));
    assert_non_null(strstr(f.error.message, f.path));
  }
  assert_null(f.store);
  fixture_reopen(&f);
  assert_int_equal(fixture_info(&f).tokens, 156);
  check_everything(&f, 156);
  fixture_end(&f);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_configs),    cmocka_unit_test(test_arena),      cmocka_unit_test(test_pinned),
      cmocka_unit_test(test_lru),        cmocka_unit_test(test_coalescing), cmocka_unit_test(test_tickets),
      cmocka_unit_test(test_late_blocks), cmocka_unit_test(test_late_time), cmocka_unit_test(test_capacity),
      cmocka_unit_test(test_arguments),  cmocka_unit_test(test_int8),       cmocka_unit_test(test_trace),
      cmocka_unit_test(test_reopen), cmocka_unit_test(test_signals),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
