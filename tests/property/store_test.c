/* Random lives of a store against what was appended: whatever is done in whatever order, on any slow tier, rows that a
 * resolve or read gives out are the ones that went in. */
#include "fake_device.h"
#include "random.h"
#include "store_fixture.h"

typedef struct life {
  fixture f;
  fake_device device;
  kvsift_store_device calls;
  test_random random;
  uint32_t tokens;
} life;

static uint32_t pick(life *w, uint32_t n) { return random_below(&w->random, n); }

/* Up to three stretches a list that together have no more blocks than the layer has room for. */
static void random_lists(life *w, fixture_lists *s) {
  lists_init(s, &w->f, w->tokens, (int)pick(w, 2));
  for (uint32_t l = 0; l < s->selection.lists; ++l) {
    uint32_t at = 0;
    for (uint32_t n = pick(w, 3); n > 0 && at < w->tokens; --n) {
      const uint32_t begin = at + pick(w, w->tokens - at);
      const uint32_t longest = w->tokens - begin < 9 ? w->tokens - begin : 9;
      const uint32_t end = begin + 1 + pick(w, longest);
      lists_add(s, l, begin, end > w->tokens ? w->tokens : end);
      at = end + 1;
    }
  }
}

static void step(life *w) {
  fixture_lists s;
  const uint32_t layer = pick(w, w->f.config.layers), room = w->f.config.max_tokens - w->tokens;
  const uint32_t what = pick(w, 20);
  if (what < 6 && room > 0) {
    const uint32_t tokens = 1 + pick(w, what == 0 && room > 40 ? 40 : 1);
    fixture_append(&w->f, w->tokens, tokens);
    w->tokens += tokens;
  } else if (what < 11) {
    kvsift_ticket ticket = 0;
    uint32_t done = 2;
    random_lists(w, &s);
    assert_int_equal(kvsift_store_prefetch(w->f.store, layer, &s.selection, &ticket), KVSIFT_OK);
    assert_int_equal(kvsift_store_poll(w->f.store, ticket, &done), KVSIFT_OK);
    assert_true(done < 2);
    if (pick(w, 3) == 0) assert_int_equal(kvsift_store_wait(w->f.store, ticket), KVSIFT_OK);
  } else if (what < 17) {
    random_lists(w, &s);
    if (fixture_resolve(&w->f, layer, &s) != KVSIFT_OK) fail_msg("%s", kvsift_store_last_error(w->f.store));
  } else if (what == 17 && pick(w, 4) == 0) {
    const uint32_t back = pick(w, 20);
    w->tokens -= back < w->tokens ? back : w->tokens;
    assert_int_equal(kvsift_store_truncate(w->f.store, w->tokens), KVSIFT_OK);
  } else if (what == 18 && pick(w, 4) == 0) {
    fixture_reopen(&w->f);
    const uint32_t whole = w->tokens - w->tokens % w->f.config.block_tokens;
    assert_int_equal(fixture_info(&w->f).tokens, whole);
    w->tokens = whole;
  } else if (what == 19 && pick(w, 8) == 0) {
    check_everything(&w->f, w->tokens);
  }
}

static void vary(life *w) {
  kvsift_store_config *c = &w->f.config;
  c->block_tokens = 1u << pick(w, 4);
  c->kv_heads = 1 + pick(w, 3);
  c->query_heads = c->kv_heads * (1 + pick(w, 3));
  c->layers = 1 + pick(w, 3);
  c->resident_layers = pick(w, 4) == 0 ? 1 : 0;
  c->head_dim = 1 + pick(w, 40);
  c->max_tokens = 100 + pick(w, 100);
  c->sink_tokens = pick(w, 6);
  c->local_tokens = pick(w, 12);
  /* Six stretches of up to 9 tokens for each KV head, beside the pinned blocks. */
  c->fast_blocks = (c->sink_tokens + c->local_tokens + 6 * 2 * 9) / c->block_tokens + 12;
  c->threads = 1 + pick(w, 3);
  c->depth = 1 + pick(w, 8);
  c->alignment = c->backend == KVSIFT_STORE_FILE ? 512u << pick(w, 4) : 64u << pick(w, 6);
  c->trace_events = pick(w, 2) * 16;
  c->timing = pick(w, 2);
}

static void live(uint32_t backend, uint32_t io, uint32_t direct, uint64_t seed, uint32_t steps) {
  life *w = (life *)calloc(1, sizeof *w);
  uint64_t slow = 0;
  w->random.state = seed;
  fixture_config(&w->f, backend);
  vary(w);
  w->f.config.io = io;
  w->f.config.direct = direct;
  w->calls = fake_calls(&w->device);
  w->f.config.device = &w->calls;
  assert_int_equal(kvsift_store_slow_size(&w->f.config, &slow), KVSIFT_OK);
  fake_open(&w->device, slow);
  w->device.most = pick(w, 2) == 0 ? 0 : 1 + pick(w, 5000);
  fixture_create(&w->f);
  if (pick(w, 3) > 0) {
    w->tokens = pick(w, w->f.config.max_tokens);
    fixture_append(&w->f, 0, w->tokens);
  }
  for (uint32_t i = 0; i < steps; ++i) step(w);
  check_everything(&w->f, w->tokens);
  const kvsift_store_stats stats = fixture_stats(&w->f);
  assert_int_equal(stats.io_errors + stats.corrupt_records, 0);
  fixture_end(&w->f);
  fake_close(&w->device);
  free(w);
}

static void test_host(void **state) {
  (void)state;
  for (uint64_t seed = 1; seed <= 60; ++seed) live(KVSIFT_STORE_HOST, 0, 0, seed, 300);
}

static void test_device(void **state) {
  (void)state;
  for (uint64_t seed = 1; seed <= 40; ++seed) live(KVSIFT_STORE_CUSTOM, 0, 0, seed + 1000, 300);
}

static void test_file_threads(void **state) {
  (void)state;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    live(KVSIFT_STORE_FILE, KVSIFT_STORE_IO_THREADS, (uint32_t)seed % 2, seed + 2000, 200);
  }
}

static void test_file_ring(void **state) {
  (void)state;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    live(KVSIFT_STORE_FILE, KVSIFT_STORE_IO_AUTO, (uint32_t)seed % 2, seed + 3000, 200);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_host),
      cmocka_unit_test(test_device),
      cmocka_unit_test(test_file_threads),
      cmocka_unit_test(test_file_ring),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
