/* BalanceKV in a policy: what the guard and the graded form keep, as method, as stream and as tail. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <kvsift/balance.h>

#include "random.h"

enum { PROMPT = 1500, TOKENS = 1700, DIM = 16, GROUP = 2, WINDOW = 8, NEEDLE = 400, SINKS = 8, LOCAL = 24 };

typedef struct room {
  kvsift_error error;
  kvsift_policy_config config;
  kvsift_policy *policy;
  void *arena;
  float keys[TOKENS][DIM], values[TOKENS][DIM], queries[TOKENS][GROUP][DIM];
  float out[TOKENS * GROUP * DIM];
  kvsift_selection selection;
} room;

static kvsift_view view_of(const void *rows, uint32_t heads) {
  return (kvsift_view){.data = rows, .type = KVSIFT_F32, .token_stride = 4 * DIM * heads, .head_stride = 4 * DIM};
}

/* Keys about one direction, but for a needle that points the other way and that the queries look for. */
static void fill(room *r, uint64_t seed) {
  test_random random = {seed};
  for (uint32_t i = 0; i < TOKENS; ++i) {
    for (uint32_t c = 0; c < DIM; ++c) {
      const float mean = c == 0 ? 3.0f : 0.0f;
      r->keys[i][c] = mean + 2.0f * random_unit(&random) - 1.0f;
      r->values[i][c] = 2.0f * random_unit(&random) - 1.0f;
      for (uint32_t g = 0; g < GROUP; ++g) r->queries[i][g][c] = 2.0f * random_unit(&random) - 1.0f - mean;
    }
  }
  r->keys[NEEDLE][0] = -8.0f;
}

static kvsift_policy_config config_of(room *r, kvsift_method method) {
  kvsift_policy_config c = {.struct_size = sizeof c};
  assert_int_equal(kvsift_policy_config_init(&c, method), KVSIFT_OK);
  c.layers = c.kv_heads = 1;
  c.query_heads = GROUP;
  c.head_dim = DIM;
  c.max_tokens = TOKENS;
  c.block_tokens = 16;
  c.sink_tokens = SINKS;
  c.local_tokens = LOCAL;
  c.budget_tokens = 64;
  c.dense_layers = 0;
  c.dense_tokens = KVSIFT_DENSE_OFF;
  c.tail = KVSIFT_TAIL_BALANCE;
  c.window = WINDOW;
  c.balance_group = 64;
  c.coreset_tokens = 300;
  c.rollback_tokens = 4;
  c.error = &r->error;
  return c;
}

static void create(room *r) {
  uint64_t bytes = 0;
  if (kvsift_policy_arena_size(&r->config, &bytes, NULL) != KVSIFT_OK) fail_msg("%s", r->error.message);
  r->arena = aligned_alloc(KVSIFT_ARENA_ALIGNMENT, bytes);
  assert_int_equal(kvsift_policy_create(&r->config, r->arena, bytes, &r->policy), KVSIFT_OK);
}

static kvsift_cache cache_of(const room *r, uint32_t tokens) {
  return (kvsift_cache){.struct_size = sizeof(kvsift_cache), .tokens = tokens, .keys = view_of(r->keys, 1),
                        .values = view_of(r->values, 1)};
}

static kvsift_status observe(room *r, uint32_t first, uint32_t tokens) {
  const kvsift_view keys = view_of(r->keys[first], 1), values = view_of(r->values[first], 1);
  return kvsift_observe_keys(r->policy, 0, NULL, first, tokens, &keys, &values);
}

static kvsift_query query_of(const room *r, uint32_t tokens, uint32_t rows) {
  return (kvsift_query){.struct_size = sizeof(kvsift_query), .tokens = tokens, .rows = rows,
                        .view = view_of(r->queries[tokens - rows], GROUP)};
}

static kvsift_status prefill(room *r, uint32_t tokens, uint32_t rows) {
  const kvsift_query query = query_of(r, tokens, rows);
  const kvsift_cache cache = cache_of(r, tokens);
  return kvsift_prefill_attend(r->policy, 0, &query, &cache, r->out);
}

static void read_prompt(room *r) {
  assert_int_equal(observe(r, 0, PROMPT), KVSIFT_OK);
  if (prefill(r, PROMPT, WINDOW) != KVSIFT_OK) fail_msg("%s", kvsift_last_error(r->policy));
  assert_int_equal(kvsift_advance(r->policy, PROMPT), KVSIFT_OK);
}

static void step(room *r, uint32_t tokens) {
  const kvsift_query query = query_of(r, tokens, 1);
  const kvsift_cache cache = cache_of(r, tokens);
  r->selection = (kvsift_selection){.struct_size = sizeof r->selection};
  assert_int_equal(observe(r, tokens - 1, 1), KVSIFT_OK);
  assert_int_equal(kvsift_select_blocks(r->policy, 0, &query, &r->selection), KVSIFT_OK);
  assert_int_equal(kvsift_attend(r->policy, 0, &query, &cache, &r->selection, r->out, NULL), KVSIFT_OK);
  assert_int_equal(kvsift_advance(r->policy, 1), KVSIFT_OK);
}

static room *room_new(kvsift_method method, uint64_t seed) {
  room *r = calloc(1, sizeof *r);
  fill(r, seed);
  r->config = config_of(r, method);
  return r;
}

static void room_free(room *r) {
  free(r->arena);
  free(r);
}

static float weight_of(const kvsift_selection *s, uint32_t token) {
  for (uint32_t i = 0; i < s->coreset_counts[0]; ++i)
    if (s->coreset[i] == token) return s->coreset_weights[i];
  return 0.0f;
}

static int is_in(const kvsift_selection *s, uint32_t token) {
  for (uint32_t i = 0; i < s->range_counts[0]; ++i)
    if (token >= s->ranges[i].begin && token < s->ranges[i].end) return 1;
  return 0;
}

/* Every token counts once: itself, or by another's weight. */
static void check_sum(const kvsift_selection *s) {
  double sum = 0.0;
  for (uint32_t t = 0; t < s->tokens; ++t) sum += is_in(s, t);
  for (uint32_t i = 0; i < s->coreset_counts[0]; ++i) {
    assert_true(i == 0 || s->coreset[i] > s->coreset[i - 1]);
    if (!is_in(s, s->coreset[i])) sum += (double)s->coreset_weights[i];
  }
  assert_true(fabs(sum / s->tokens - 1.0) < 1e-3);
}

/* At the end of the prompt all but sinks and local tokens are halved, however the groups fell. */
static void compresses_the_whole_prompt(void **state) {
  (void)state;
  for (uint32_t halvings = 1; halvings <= 3; ++halvings) {
    room *r = room_new(KVSIFT_METHOD_BALANCE, 1);
    r->config.balance_halvings = halvings;
    create(r);
    read_prompt(r);
    step(r, PROMPT + 1);
    const uint32_t halved = PROMPT + 1 - SINKS - LOCAL, kept = r->selection.coreset_counts[0] - LOCAL;
    assert_true(kept <= (halved >> halvings) + 1 && kept + 2 * halvings >= halved >> halvings);
    /* Decoded tokens stay, and the first of them can be taken back. */
    for (uint32_t t = PROMPT + 2; t < PROMPT + 100; ++t) step(r, t);
    assert_int_equal(r->selection.coreset_counts[0] - LOCAL, kept);
    for (uint32_t t = PROMPT; t < PROMPT + 99; ++t) assert_true(is_in(&r->selection, t));
    check_sum(&r->selection);
    room_free(r);
  }
}

static void guards_needles(void **state) {
  (void)state;
  for (uint32_t round = 0; round < 3; ++round) {
    room *r = room_new(round == 2 ? KVSIFT_METHOD_STREAMING : KVSIFT_METHOD_BALANCE, 2 + round);
    r->config.balance_streaming = round == 1;
    r->config.balance_guard = 1;
    /* Behind the prompt, where only a stream looks. */
    const uint32_t late = PROMPT + 40;
    r->keys[late][0] = -8.0f;
    create(r);
    read_prompt(r);
    for (uint32_t t = PROMPT + 1; t <= TOKENS; ++t) {
      step(r, t);
      check_sum(&r->selection);
    }
    /* The tail's group begins at the needle: what lies before it was halved already. */
    for (uint32_t t = round == 2 ? NEEDLE : NEEDLE - 3; t <= NEEDLE + 3; ++t)
      assert_true(weight_of(&r->selection, t) == 1.0f);
    assert_true(round == 0 ? is_in(&r->selection, late) : weight_of(&r->selection, late) == 1.0f);
    /* The rest is halved as ever. */
    const uint32_t most = round == 2 ? r->config.coreset_tokens + LOCAL : TOKENS / 2 + 64 + LOCAL;
    assert_true(r->selection.coreset_counts[0] <= most);
    room_free(r);
  }
}

/* The policy's coreset is what kvsift_balance_compress gives for the same importance. */
static void grades_as_compress_does(void **state) {
  (void)state;
  for (uint32_t guard = 0; guard < 2; ++guard) {
    room *r = room_new(KVSIFT_METHOD_BALANCE, 5);
    r->config.balance_form = KVSIFT_BALANCE_GRADED;
    r->config.balance_streaming = 1; /* so that the local tokens stay apart */
    r->config.balance_guard = guard;
    r->config.seed = 77;
    create(r);
    kvsift_policy_info info = {.struct_size = sizeof info};
    assert_int_equal(kvsift_policy_get_info(r->policy, &info), KVSIFT_OK);
    assert_int_equal(info.prefill_rows, WINDOW);
    read_prompt(r);
    step(r, PROMPT + 1);

    float row[PROMPT], importance[PROMPT], weight[PROMPT];
    uint32_t index[PROMPT], count = 0;
    const kvsift_query query = query_of(r, PROMPT, WINDOW);
    const kvsift_cache cache = cache_of(r, PROMPT);
    assert_int_equal(kvsift_balance_importance(DIM, 0.0f, &query, GROUP, &cache, row, importance, NULL), KVSIFT_OK);
    kvsift_balance_config c = {.struct_size = sizeof c};
    assert_int_equal(kvsift_balance_config_init(&c, KVSIFT_BALANCE_GRADED), KVSIFT_OK);
    c.head_dim = DIM;
    c.halvings = r->config.balance_halvings;
    c.group_tokens = r->config.balance_group;
    c.guard = guard;
    c.seed = 77;
    c.value_offset = r->config.balance_value_offset;
    c.importance = importance;
    uint64_t bytes = 0;
    const kvsift_range range = {SINKS, PROMPT - LOCAL};
    assert_int_equal(kvsift_balance_scratch_size(&c, range.end - range.begin, &bytes), KVSIFT_OK);
    void *scratch = aligned_alloc(KVSIFT_ARENA_ALIGNMENT, bytes);
    assert_int_equal(kvsift_balance_compress(&c, &cache, 0, range, scratch, bytes, index, weight, PROMPT, &count, NULL),
                     KVSIFT_OK);
    assert_true(count > 0);
    for (uint32_t i = 0; i < count; ++i) {
      assert_int_equal(r->selection.coreset[i], index[i]);
      assert_true(r->selection.coreset_weights[i] == weight[i]);
    }
    assert_int_equal(r->selection.coreset[count], range.end);
    assert_true(weight_of(&r->selection, NEEDLE) == 1.0f);
    free(scratch);
    room_free(r);
  }
}

static void grades_in_every_use(void **state) {
  (void)state;
  for (uint32_t round = 0; round < 3; ++round) {
    room *r = room_new(round == 2 ? KVSIFT_METHOD_STREAMING : KVSIFT_METHOD_BALANCE, 8 + round);
    r->config.balance_form = KVSIFT_BALANCE_GRADED;
    r->config.balance_streaming = round == 1;
    r->config.balance_halvings = 4;
    create(r);
    /* The first piece is graded too, and graded anew with the second. */
    assert_int_equal(prefill(r, 700, WINDOW), KVSIFT_OUT_OF_ORDER);
    assert_non_null(strstr(kvsift_last_error(r->policy), "kvsift_observe_keys"));
    assert_int_equal(observe(r, 0, 700), KVSIFT_OK);
    assert_int_equal(prefill(r, 700, WINDOW), KVSIFT_OK);
    assert_int_equal(kvsift_advance(r->policy, 700), KVSIFT_OK);
    assert_int_equal(observe(r, 700, PROMPT - 700), KVSIFT_OK);
    assert_int_equal(prefill(r, PROMPT, WINDOW), KVSIFT_OK);
    assert_int_equal(kvsift_advance(r->policy, PROMPT - 700), KVSIFT_OK);
    for (uint32_t t = PROMPT + 1; t <= TOKENS; ++t) {
      step(r, t);
      check_sum(&r->selection);
    }
    assert_true(weight_of(&r->selection, NEEDLE) == 1.0f);
    if (round < 2) assert_true(r->selection.coreset_counts[0] < TOKENS / 16 + 4 * 64 + LOCAL);
    assert_int_equal(kvsift_truncate(r->policy, PROMPT - 1), KVSIFT_ROLLBACK);
    assert_int_equal(kvsift_truncate(r->policy, TOKENS - 3), KVSIFT_OK);
    for (uint32_t t = TOKENS - 2; t <= TOKENS; ++t) step(r, t);
    check_sum(&r->selection);
    room_free(r);
  }
}

static void refuses_bad_forms(void **state) {
  (void)state;
  room *r = room_new(KVSIFT_METHOD_BALANCE, 11);
  uint64_t bytes = 0;
  r->config.balance_form = KVSIFT_BALANCE_PERMUTATION;
  assert_int_equal(kvsift_policy_arena_size(&r->config, &bytes, NULL), KVSIFT_UNSUPPORTED);
  assert_non_null(strstr(r->error.message, "balance_form"));
  r->config.balance_form = KVSIFT_BALANCE_GRADED;
  r->config.window = 0;
  assert_int_equal(kvsift_policy_arena_size(&r->config, &bytes, NULL), KVSIFT_INVALID_ARGUMENT);
  assert_non_null(strstr(r->error.message, "window"));
  room_free(r);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(compresses_the_whole_prompt), cmocka_unit_test(guards_needles),
      cmocka_unit_test(grades_as_compress_does),     cmocka_unit_test(grades_in_every_use),
      cmocka_unit_test(refuses_bad_forms),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
