/* Short contexts are attended to whole, however small the budget, and methods go on learning meanwhile. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
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
      cmocka_unit_test(test_learning), cmocka_unit_test(test_deciding_late), cmocka_unit_test(test_no_prediction),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
