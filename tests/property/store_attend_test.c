/* Attention straight from the store's slots: bit for bit what the same policy gives over a cache that is all in memory,
 * with prefetch and without, and, under late caps, what the reduced selection gives. */
#include "fake_device.h"
#include "random.h"
#include "store_fixture.h"

enum { LAYERS = 2, HEADS = 4, KV_HEADS = 2, DIM = 24, PROMPT = 400, STEPS = 120, TOKENS = PROMPT + STEPS, BLOCK = 16 };

typedef struct world {
  uint16_t keys[LAYERS][TOKENS][KV_HEADS][DIM], values[LAYERS][TOKENS][KV_HEADS][DIM];
  float query[HEADS][DIM];
  test_random random;
  kvsift_policy *policy;
  void *policy_arena;
  fixture f;
  uint64_t dropped;
} world;

static kvsift_view rows_of(void *first) {
  const kvsift_view view = {.data = first, .type = KVSIFT_F16, .token_stride = 2 * KV_HEADS * DIM, .head_stride = 2 * DIM};
  return view;
}

static void make_policy(world *w, kvsift_method method, uint32_t grouping, uint32_t tail) {
  kvsift_policy_config c = {.struct_size = sizeof c};
  uint64_t bytes = 0, alignment = 0;
  assert_int_equal(kvsift_policy_config_init(&c, method), KVSIFT_OK);
  c.dense_tokens = KVSIFT_DENSE_OFF;
  c.layers = LAYERS, c.query_heads = HEADS, c.kv_heads = KV_HEADS, c.head_dim = DIM, c.max_tokens = TOKENS;
  c.budget_tokens = 128, c.sink_tokens = 16, c.local_tokens = 32, c.dense_layers = 0;
  c.grouping = grouping, c.tail = tail;
  assert_int_equal(kvsift_policy_arena_size(&c, &bytes, &alignment), KVSIFT_OK);
  w->policy_arena = fixture_memory(bytes, alignment);
  assert_int_equal(kvsift_policy_create(&c, w->policy_arena, bytes, &w->policy), KVSIFT_OK);
}

static void make_store(world *w, uint32_t backend, uint32_t late_blocks) {
  fixture_config(&w->f, backend);
  kvsift_store_config *c = &w->f.config;
  c->layers = LAYERS, c->kv_heads = KV_HEADS, c->query_heads = HEADS, c->head_dim = DIM;
  c->max_tokens = TOKENS, c->block_tokens = BLOCK, c->fast_blocks = 20;
  c->sink_tokens = 16, c->local_tokens = 32, c->late_blocks = late_blocks;
  fixture_create(&w->f);
}

static void ok(world *w, kvsift_status status) {
  if (status != KVSIFT_OK) {
    fail_msg("%d: \"%s\" \"%s\"", status, kvsift_last_error(w->policy), kvsift_store_last_error(w->f.store));
  }
}

static void add_tokens(world *w, uint32_t layer, uint32_t first, uint32_t tokens) {
  const kvsift_view keys = rows_of(w->keys[layer][first]), values = rows_of(w->values[layer][first]);
  ok(w, kvsift_observe_keys(w->policy, layer, NULL, first, tokens, &keys, &values));
  ok(w, kvsift_store_append(w->f.store, layer, first, tokens, &keys, &values));
}

typedef struct result {
  float out[HEADS][DIM], block_max[HEADS][TOKENS / BLOCK + 1], block_mass[HEADS][TOKENS / BLOCK + 1], lse[HEADS];
} result;

static kvsift_observation observation_of(result *r, uint32_t tokens) {
  memset(r, 0, sizeof *r);
  const kvsift_observation o = {.struct_size = sizeof o, .tokens = tokens, .block_stride = TOKENS / BLOCK + 1,
                                .block_max = r->block_max[0], .block_mass = r->block_mass[0], .log_sum_exp = r->lse};
  return o;
}

static void attend_both(world *w, uint32_t layer, const kvsift_query *query, int ahead) {
  static result here, stored;
  kvsift_selection selection = {.struct_size = sizeof selection};
  kvsift_cache cache = {.struct_size = sizeof cache}, whole = {.struct_size = sizeof whole, .tokens = query->tokens};
  whole.keys = rows_of(w->keys[layer][0]);
  whole.values = rows_of(w->values[layer][0]);
  ok(w, kvsift_select_blocks(w->policy, layer, query, &selection));
  ok(w, kvsift_store_resolve(w->f.store, layer, &selection, &cache));
  kvsift_observation a = observation_of(&here, query->tokens), b = observation_of(&stored, query->tokens);
  ok(w, kvsift_attend(w->policy, layer, query, &whole, &selection, here.out[0], &a));
  ok(w, kvsift_attend(w->policy, layer, query, &cache, &selection, stored.out[0], &b));
  assert_memory_equal(&here, &stored, sizeof here);
  assert_true(here.lse[0] == here.lse[0] && here.out[0][0] != 0);
  ok(w, kvsift_observe_attention(w->policy, layer, query, &b));
  if (ahead) ok(w, kvsift_store_prefetch(w->f.store, layer, &selection, NULL));
}

static void decode(kvsift_method method, uint32_t grouping, uint32_t tail, uint32_t backend, uint32_t late_blocks) {
  world *w = (world *)calloc(1, sizeof *w);
  w->random.state = method + 10 * grouping;
  for (size_t i = 0; i < sizeof w->keys / 2; ++i) {
    const uint32_t bits = random_bits(&w->random);
    (&w->keys[0][0][0][0])[i] = (uint16_t)((bits & 0x83ffu) | (13u + (bits >> 16) % 3u) << 10);
    (&w->values[0][0][0][0])[i] = (uint16_t)(((bits >> 16) & 0x83ffu) | 0x3800u);
  }
  make_policy(w, method, grouping, tail);
  make_store(w, backend, late_blocks);
  for (uint32_t l = 0; l < LAYERS; ++l) add_tokens(w, l, 0, PROMPT);
  ok(w, kvsift_advance(w->policy, PROMPT));
  for (uint32_t t = PROMPT; t < TOKENS; ++t) {
    for (uint32_t l = 0; l < LAYERS; ++l) {
      for (uint32_t i = 0; i < HEADS * DIM; ++i) (&w->query[0][0])[i] = 4 * random_unit(&w->random) - 2;
      const kvsift_query query = {.struct_size = sizeof query, .tokens = t + 1,
                                  .view = {.data = w->query, .head_stride = sizeof w->query[0]}};
      add_tokens(w, l, t, 1);
      attend_both(w, l, &query, t % 3 > 0);
    }
    ok(w, kvsift_advance(w->policy, 1));
  }
  const kvsift_store_stats stats = fixture_stats(&w->f);
  assert_true(stats.hits > 0 && (late_blocks == 0 || stats.late > 0));
  assert_true(stats.evictions > 100 || late_blocks != KVSIFT_STORE_NO_LIMIT);
  assert_true((stats.dropped > 0) == (late_blocks != KVSIFT_STORE_NO_LIMIT));
  fixture_end(&w->f);
  free(w->policy_arena);
  free(w);
}

static void test_exact(void **state) {
  (void)state;
  for (uint32_t backend = KVSIFT_STORE_FILE; backend <= KVSIFT_STORE_HOST; ++backend) {
    decode(KVSIFT_METHOD_PAGE_STATS, KVSIFT_GROUP_MEAN, KVSIFT_TAIL_MOMENTS, backend, KVSIFT_STORE_NO_LIMIT);
    decode(KVSIFT_METHOD_QUEST, KVSIFT_GROUP_QUERY_HEAD, KVSIFT_TAIL_MOMENTS, backend, KVSIFT_STORE_NO_LIMIT);
    decode(KVSIFT_METHOD_PAGE_STATS, KVSIFT_GROUP_QUERY_HEAD, KVSIFT_TAIL_NONE, backend, KVSIFT_STORE_NO_LIMIT);
  }
}

static void test_late_caps(void **state) {
  (void)state;
  decode(KVSIFT_METHOD_PAGE_STATS, KVSIFT_GROUP_MEAN, KVSIFT_TAIL_MOMENTS, KVSIFT_STORE_HOST, 2);
  decode(KVSIFT_METHOD_PAGE_STATS, KVSIFT_GROUP_QUERY_HEAD, KVSIFT_TAIL_MOMENTS, KVSIFT_STORE_FILE, 0);
}

/* A coreset's rows lie in blocks that the ranges do not name. */
static void test_coreset(void **state) {
  (void)state;
  world *w = (world *)calloc(1, sizeof *w);
  kvsift_selection selection = {.struct_size = sizeof selection};
  kvsift_cache cache = {.struct_size = sizeof cache};
  const kvsift_query query = {.struct_size = sizeof query, .tokens = PROMPT,
                              .view = {.data = w->query, .head_stride = sizeof w->query[0]}};
  make_policy(w, KVSIFT_METHOD_STREAMING, KVSIFT_GROUP_MEAN, KVSIFT_TAIL_BALANCE);
  make_store(w, KVSIFT_STORE_HOST, KVSIFT_STORE_NO_LIMIT);
  for (uint32_t l = 0; l < LAYERS; ++l) add_tokens(w, l, 0, PROMPT);
  ok(w, kvsift_select_blocks(w->policy, 0, &query, &selection));
  assert_true(selection.coreset_counts[0] > 0);
  assert_int_equal(kvsift_store_resolve(w->f.store, 0, &selection, &cache), KVSIFT_UNSUPPORTED);
  assert_non_null(strstr(kvsift_store_last_error(w->f.store), "tail is KVSIFT_TAIL_BALANCE"));
  fixture_end(&w->f);
  free(w->policy_arena);
  free(w);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_exact), cmocka_unit_test(test_late_caps),
                                     cmocka_unit_test(test_coreset)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
