/* Short contexts are attended to whole, however small the budget, and methods go on learning meanwhile. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cases.h"
#include "lists.h"
#include "subject.h"

enum { BUDGET = 32, MOST = 256, PROMPT = 40, LIMIT = 60 };

static kvsift_policy_config config_of(kvsift_method method) {
  kvsift_policy_config c = {.struct_size = sizeof c};
  must(NULL, kvsift_policy_config_init(&c, method));
  c.layers = 2, c.dense_layers = 0, c.query_heads = 4, c.kv_heads = 2, c.head_dim = 16, c.max_tokens = MOST;
  c.block_tokens = c.page_tokens = 8, c.sink_tokens = 4, c.local_tokens = 8, c.window = 6, c.history_rows = 8;
  if (method != KVSIFT_METHOD_FULL) c.budget_tokens = BUDGET;
  return c;
}

/* What was selected and computed at each length. */
typedef struct record {
  uint32_t everything[MOST + 1];
  uint64_t lists[MOST + 1], out[MOST + 1];
} record;

static uint64_t hash(uint64_t h, const void *data, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i) h = (h ^ ((const uint8_t *)data)[i]) * 0x100000001b3u;
  return h;
}

static void look(session *s, const session_answer *a) {
  record *r = s->context;
  r->everything[a->tokens] = a->selection->everything;
  for (uint32_t list = 0; list < a->selection->lists; ++list) {
    const kvsift_range *ranges = a->selection->ranges + (size_t)list * a->selection->range_stride;
    r->lists[a->tokens] = hash(r->lists[a->tokens], ranges, a->selection->range_counts[list] * sizeof *ranges);
  }
  r->out[a->tokens] = hash(r->out[a->tokens], a->out, 4 * s->config.query_heads * s->config.head_dim);
}

/* A prompt and decode steps up to `tokens`. */
static record run(const kvsift_policy_config *c, uint32_t tokens) {
  record r;
  memset(&r, 0, sizeof r);
  toy *t = toy_new(3, c, plain_form);
  session *s = session_new(c, t);
  s->look = look;
  s->context = &r;
  session_prompt(s, PROMPT);
  session_steps(s, tokens - PROMPT);
  session_free(s);
  toy_free(t);
  return r;
}

static void test_explicit(void **state) {
  (void)state;
  const kvsift_policy_config full_config = config_of(KVSIFT_METHOD_FULL);
  const record full = run(&full_config, LIMIT);
  for (kvsift_method m = 1; m < KVSIFT_METHOD_COUNT; ++m) {
    kvsift_policy_config c = config_of(m);
    c.dense_tokens = LIMIT, c.calibration_period = 0;
    const record r = run(&c, LIMIT + 4);
    for (uint32_t n = PROMPT + 1; n <= LIMIT + 4; ++n) {
      expect(r.everything[n] == (n <= LIMIT), "%s: everything is %u at %u tokens", kvsift_method_name(m), r.everything[n], n);
      expect(n > LIMIT || r.out[n] == full.out[n], "%s: the output at %u tokens is not full attention's",
             kvsift_method_name(m), n);
    }
  }
}

/* Without the library's own limit only the budget counts, and beyond six budgets it has none. */
static void test_automatic(void **state) {
  (void)state;
  for (kvsift_method m = 1; m < KVSIFT_METHOD_COUNT; ++m) {
    kvsift_policy_config c = config_of(m);
    c.calibration_period = 0;
    const record own = run(&c, 6 * BUDGET + 1);
    c.dense_tokens = KVSIFT_DENSE_OFF;
    const record off = run(&c, PROMPT + 2);
    expect(m == KVSIFT_METHOD_STREAMING || own.everything[PROMPT + 1], "%s is sparse just above its budget",
           kvsift_method_name(m));
    expect(!own.everything[6 * BUDGET + 1], "%s attends to everything at %u tokens", kvsift_method_name(m), 6 * BUDGET + 1);
    expect(!off.everything[PROMPT + 1], "%s: everything at %u tokens, for a budget of %u", kvsift_method_name(m),
           PROMPT + 1, BUDGET);
  }
  kvsift_policy_config c = config_of(KVSIFT_METHOD_PAGE_STATS);
  c.budget_share = 0.9f;
  const record large = run(&c, MOST - 8);
  expect(large.everything[MOST - 8], "a share of 0.9 is sparse at %u tokens", MOST - 8);
  c.budget_share = 0.1f;
  const record small = run(&c, MOST - 8);
  expect(!small.everything[MOST - 8], "a share of 0.1 reads everything at %u tokens", MOST - 8);
}

/* Each choice for a KV head costs: one for each query head stays dense for longer. */
static void test_grouping(void **state) {
  (void)state;
  kvsift_policy_config c = config_of(KVSIFT_METHOD_QUEST);
  const record apart = run(&c, 2 * BUDGET);
  c.grouping = KVSIFT_GROUP_MEAN;
  const record shared = run(&c, 2 * BUDGET);
  expect(apart.everything[2 * BUDGET] && !shared.everything[2 * BUDGET], "%u and %u at %u tokens",
         apart.everything[2 * BUDGET], shared.everything[2 * BUDGET], 2 * BUDGET);
}

/* The first sparse step chooses as if every row before it had been a calibration. */
static void test_learning(void **state) {
  (void)state;
  static const kvsift_method learning[] = {KVSIFT_METHOD_EMA, KVSIFT_METHOD_ATTENTION_PREDICTOR};
  for (uint32_t i = 0; i < 2; ++i) {
    kvsift_policy_config c = config_of(learning[i]);
    c.dense_tokens = KVSIFT_DENSE_OFF, c.calibration_period = 1, c.calibration_dense = 0;
    const record calibrated = run(&c, LIMIT + 1);
    c.dense_tokens = LIMIT, c.calibration_period = 0;
    const record dense = run(&c, LIMIT + 1);
    expect(dense.lists[LIMIT + 1] == calibrated.lists[LIMIT + 1], "%s chooses otherwise", kvsift_method_name(learning[i]));
  }
}

enum { LONG = 150 };

/* A saved policy that has gone from a short prompt to LONG tokens, with another row than usual at `odd` tokens. */
static uint64_t state_after(const kvsift_policy_config *config, uint32_t odd) {
  static float rows[4 * MOST];
  kvsift_policy_config c = *config;
  kvsift_error error = {0};
  uint64_t bytes = 0;
  c.error = &error;
  expect(kvsift_policy_arena_size(&c, &bytes, NULL) == KVSIFT_OK, "%s", error.message);
  void *arena = aligned_alloc(KVSIFT_ARENA_ALIGNMENT, (size_t)bytes);
  kvsift_policy *policy = NULL;
  expect(kvsift_policy_create(&c, arena, bytes, &policy) == KVSIFT_OK, "%s", error.message);
  must(policy, kvsift_advance(policy, PROMPT));
  for (uint32_t n = PROMPT + 1; n <= LONG; ++n) {
    for (uint32_t i = 0; i < 4 * MOST; ++i) rows[i] = (float)((i + n + (n == odd) * 13) % 29) / 29;
    const kvsift_observation seen = {.struct_size = sizeof seen, .tokens = n, .full = 1, .rows = rows, .row_stride = MOST};
    for (uint32_t layer = 0; layer < c.layers; ++layer) {
      const kvsift_query query = {.struct_size = sizeof query, .tokens = n};
      kvsift_selection selection = {.struct_size = sizeof selection};
      must(policy, kvsift_select_blocks(policy, layer, &query, &selection));
      expect(selection.everything, "sparse at %u tokens", n);
      must(policy, kvsift_observe_attention(policy, layer, NULL, &seen));
    }
    must(policy, kvsift_advance(policy, 1));
  }
  must(policy, kvsift_snapshot_size(policy, &bytes));
  char *saved = malloc((size_t)bytes);
  must(policy, kvsift_snapshot_save(policy, saved, bytes, &bytes));
  const uint64_t print = hash(0, saved, (size_t)bytes);
  free(saved);
  free(arena);
  return print;
}

/* Rows that are forgotten by the first sparse step are not looked at, and the first that is not is. */
static void test_passing_over(void **state) {
  (void)state;
  kvsift_policy_config ema = config_of(KVSIFT_METHOD_EMA), predictor = config_of(KVSIFT_METHOD_ATTENTION_PREDICTOR);
  ema.dense_tokens = predictor.dense_tokens = LONG;
  ema.ema_decay = 0.75f;  /* 0.75^57 = 2^-23.7, 0.75^58 = 2^-24.1 */
  predictor.predict_period = 3;
  const struct { const kvsift_policy_config *config; uint32_t memory; } cases[] = {{&ema, 58}, {&predictor, 8 + 2}};
  for (uint32_t i = 0; i < 2; ++i) {
    const uint32_t first = LONG + 1 - cases[i].memory;
    const uint64_t usual = state_after(cases[i].config, 0);
    const char *name = kvsift_method_name(cases[i].config->method);
    expect(state_after(cases[i].config, first - 1) == usual, "%s looks at the row of %u tokens", name, first - 1);
    expect(state_after(cases[i].config, first) != usual, "%s does not look at the row of %u tokens", name, first);
  }
}

/* What decides on the prompt decides the same, only later. */
static void test_deciding_late(void **state) {
  (void)state;
  static const kvsift_method once[] = {KVSIFT_METHOD_SNAPKV, KVSIFT_METHOD_PYRAMIDKV, KVSIFT_METHOD_UNIFORM};
  for (uint32_t i = 0; i < 3; ++i) {
    kvsift_policy_config c = config_of(once[i]);
    c.dense_tokens = KVSIFT_DENSE_OFF;
    const record early = run(&c, LIMIT + 3);
    c.dense_tokens = LIMIT;
    const record late = run(&c, LIMIT + 3);
    expect(early.lists[LIMIT + 3] == late.lists[LIMIT + 3], "%s chooses otherwise", kvsift_method_name(once[i]));
    expect(early.lists[LIMIT] != late.lists[LIMIT], "%s: nothing to compare", kvsift_method_name(once[i]));
  }
}

/* A prediction that no step will read is not made. */
static void test_no_prediction(void **state) {
  (void)state;
  kvsift_policy_config c = config_of(KVSIFT_METHOD_ATTENTION_PREDICTOR);
  c.dense_tokens = LIMIT;
  toy *t = toy_new(3, &c, plain_form);
  session *s = session_new(&c, t);
  kvsift_stats stats = {.struct_size = sizeof stats};
  session_prompt(s, PROMPT);
  session_steps(s, LIMIT - 1 - PROMPT);
  must(s->policy, kvsift_predict_next(s->policy, 0, NULL));
  must(s->policy, kvsift_get_stats(s->policy, &stats));
  expect(stats.columns_total == 0, "%llu columns at %u tokens", (unsigned long long)stats.columns_total, LIMIT - 1);
  session_steps(s, 1);
  must(s->policy, kvsift_predict_next(s->policy, 0, NULL));
  must(s->policy, kvsift_get_stats(s->policy, &stats));
  expect(stats.columns_total > 0, "no columns at %u tokens", LIMIT);
  session_free(s);
  toy_free(t);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_explicit), cmocka_unit_test(test_automatic),     cmocka_unit_test(test_grouping),
      cmocka_unit_test(test_learning), cmocka_unit_test(test_passing_over), cmocka_unit_test(test_deciding_late),
      cmocka_unit_test(test_no_prediction),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
