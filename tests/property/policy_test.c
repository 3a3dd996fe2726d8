/* What holds for every method on random shapes and steps. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <kvsift/balance.h>

#include "cases.h"
#include "lists.h"
#include "subject.h"

static void look_lists(session *s, const session_answer *a) {
  lists_check(&s->config, *(const uint32_t *)s->context, a);
}

static void lists_property(subject *x) {
  session *s = session_new(&x->config, x->toy);
  s->look = look_lists;
  s->context = &x->prompt;
  session_prompt(s, x->prompt);
  session_steps(s, x->steps);
  session_free(s);
}

static void test_lists(void **state) {
  (void)state;
  each_subject(60, lists_property);
}

static void look_outputs(session *s, const session_answer *a) {
  float **out = s->context;
  const size_t bytes = 4 * s->config.query_heads * s->config.head_dim;
  expect(s->config.method == KVSIFT_METHOD_FULL || a->selection->everything == 1, "the budget covers the context, but "
         "not everything is selected");
  memcpy(*out, a->out, bytes);
  *out += bytes / 4;
}

/* The outputs of all layers and steps. */
static float *outputs_of(const kvsift_policy_config *c, const subject *x) {
  float *all = calloc((size_t)x->steps * c->layers * c->query_heads * c->head_dim, sizeof(float)), *at = all;
  session *s = session_new(c, x->toy);
  s->look = look_outputs;
  s->context = &at;
  session_prompt(s, x->prompt);
  session_steps(s, x->steps);
  session_free(s);
  return all;
}

static void identity_property(subject *x) {
  kvsift_policy_config full = {.struct_size = sizeof full}, wide = x->config;
  must(NULL, kvsift_policy_config_init(&full, KVSIFT_METHOD_FULL));
  full.layers = wide.layers;
  full.query_heads = wide.query_heads;
  full.kv_heads = wide.kv_heads;
  full.head_dim = wide.head_dim;
  full.max_tokens = wide.max_tokens;
  full.softmax_scale = wide.softmax_scale;
  if (wide.budget_tokens < wide.max_tokens) wide.budget_tokens = wide.max_tokens;
  wide.target_mass = 0;
  float *expected = outputs_of(&full, x), *out = outputs_of(&wide, x);
  const size_t bytes = 4 * (size_t)x->steps * wide.layers * wide.query_heads * wide.head_dim;
  expect(memcmp(expected, out, bytes) == 0, "outputs are not those of full attention");
  free(expected);
  free(out);
}

static void test_identity(void **state) {
  (void)state;
  each_subject(20, identity_property);
}

static void fork_property(subject *x) {
  const uint32_t half = x->steps / 2;
  session *straight = session_new(&x->config, x->toy), *s = session_new(&x->config, x->toy);
  session_prompt(straight, x->prompt);
  session_steps(straight, half);
  session_prompt(s, x->prompt);
  session_steps(s, half);
  session *copy = session_fork(s);
  /* The original goes another way, with other queries, before the copy goes on. */
  toy *other = toy_new(x->toy->seed + 1, &x->config, plain_form);
  s->toy = other;
  session_steps(s, x->steps - half);
  session_steps(straight, x->steps - half);
  session_steps(copy, x->steps - half);
  expect_same(straight, copy, "a fork");
  session *apart = session_new(&x->config, x->toy);
  session_prompt(apart, x->prompt);
  session_steps(apart, half);
  apart->toy = other;
  session_steps(apart, x->steps - half);
  expect_same(apart, s, "the original of a fork");
  toy_free(other);
  session_free(straight);
  session_free(s);
  session_free(copy);
  session_free(apart);
}

static void test_fork(void **state) {
  (void)state;
  each_subject(20, fork_property);
}

static void reload_property(subject *x) {
  const uint32_t half = random_below(&x->random, x->steps + 1);
  session *s = session_new(&x->config, x->toy);
  if (random_below(&x->random, 8) != 0) session_prompt(s, x->prompt);
  session_steps(s, half);
  session *copy = session_reload(s);
  /* What it takes to go back is saved as well. */
  const uint32_t most = half < x->config.rollback_tokens ? half : x->config.rollback_tokens;
  const uint32_t back = random_below(&x->random, most + 1);
  session_truncate(s, s->tokens - back);
  session_truncate(copy, copy->tokens - back);
  session_steps(s, x->steps - half);
  session_steps(copy, x->steps - half);
  expect_same(s, copy, "a saved and loaded policy");
  session_free(s);
  session_free(copy);
}

static void test_snapshot(void **state) {
  (void)state;
  each_subject(40, reload_property);
}

/* Whether the method can go back to `tokens`; answers other than OK and ROLLBACK fail the test. */
static bool cut(session *s, uint32_t tokens) {
  const kvsift_status status = kvsift_truncate(s->policy, tokens);
  expect(status == KVSIFT_OK || status == KVSIFT_ROLLBACK, "truncate: %s", kvsift_last_error(s->policy));
  if (status == KVSIFT_OK) s->tokens = tokens;
  return status == KVSIFT_OK;
}

static void truncate_property(subject *x) {
  session *s = session_new(&x->config, x->toy), *straight = session_new(&x->config, x->toy);
  const uint32_t steps = x->steps;
  const uint32_t far = steps < x->config.rollback_tokens ? steps : x->config.rollback_tokens;
  const uint32_t back = random_below(&x->random, far + 1);
  session_prompt(s, x->prompt);
  session_steps(s, steps - back);
  const uint64_t before = s->digest;
  toy *other = toy_new(x->toy->seed + 1, &x->config, plain_form);
  s->toy = other;
  session_steps(s, back);
  expect(cut(s, s->tokens - back), "%u of %u rollback tokens back: %s", back, x->config.rollback_tokens,
         kvsift_last_error(s->policy));
  s->toy = x->toy;
  s->digest = before;
  session_steps(s, 5);
  session_prompt(straight, x->prompt);
  session_steps(straight, steps - back + 5);
  expect_same(straight, s, "truncate and replay");
  toy_free(other);
  session_free(s);
  session_free(straight);
}

static void test_truncate(void **state) {
  (void)state;
  each_subject(60, truncate_property);
}

/* Methods that learn nothing from the prompt can go back into it: as if it had been shorter. */
static void into_prompt_property(subject *x) {
  const kvsift_method m = x->config.method;
  const bool can = m == KVSIFT_METHOD_STREAMING || m == KVSIFT_METHOD_QUEST || m == KVSIFT_METHOD_PAGE_STATS;
  const bool graded = x->config.tail == KVSIFT_TAIL_BALANCE && x->config.balance_form == KVSIFT_BALANCE_GRADED;
  if (!can || graded || x->config.rollback_tokens == 0) return;
  const uint32_t most = x->prompt < x->config.rollback_tokens ? x->prompt : x->config.rollback_tokens;
  const uint32_t back = 1 + random_below(&x->random, most);
  const uint32_t room = x->config.max_tokens - x->prompt;
  const uint32_t steps = random_below(&x->random, back < room ? back : room);
  const uint32_t length = x->prompt + steps - back;
  session *s = session_new(&x->config, x->toy), *straight = session_new(&x->config, x->toy);
  session_prompt(s, x->prompt);
  session_steps(s, steps);
  session_truncate(s, length);
  session_prompt(straight, length);
  s->digest = straight->digest = 0;
  session_steps(s, 7);
  session_steps(straight, 7);
  expect_same(straight, s, "back into the prompt");
  session_free(s);
  session_free(straight);
}

static void test_into_prompt(void **state) {
  (void)state;
  each_subject(40, into_prompt_property);
}

/* Beyond the rollback the policy may refuse, and must then go on as if never asked. */
static void refused_property(subject *x) {
  session *s = session_new(&x->config, x->toy), *straight = session_new(&x->config, x->toy);
  session_prompt(s, x->prompt);
  session_prompt(straight, x->prompt);
  session_steps(s, x->steps);
  session_steps(straight, x->steps);
  const uint32_t target = random_below(&x->random, s->tokens);
  session *probe = session_fork(s);
  if (cut(probe, target)) {
    session_free(probe);
  } else {
    session_free(s);
    s = probe;
  }
  session_steps(s, 4);
  session_steps(straight, 4);
  expect_same(straight, s, "after a refused truncate");
  session_free(s);
  session_free(straight);
}

static void test_refused_truncate(void **state) {
  (void)state;
  each_subject(15, refused_property);
}

static void reset_property(subject *x) {
  session *s = session_new(&x->config, x->toy), *fresh = session_new(&x->config, x->toy);
  session_prompt(s, x->prompt / 2);
  session_steps(s, x->steps);
  must(s->policy, kvsift_policy_reset(s->policy));
  s->tokens = 0;
  s->digest = 0;
  session_prompt(s, x->prompt);
  session_prompt(fresh, x->prompt);
  session_steps(s, x->steps);
  session_steps(fresh, x->steps);
  expect_same(fresh, s, "after reset");
  session_free(s);
  session_free(fresh);
}

static void test_reset(void **state) {
  (void)state;
  each_subject(15, reset_property);
}

static void expect_same_bytes(session *a, session *b) {
  uint64_t bytes = 0, other_bytes = 0;
  must(a->policy, kvsift_snapshot_size(a->policy, &bytes));
  must(b->policy, kvsift_snapshot_size(b->policy, &other_bytes));
  expect(bytes == other_bytes, "learning while attending leaves a state of another size");
  uint8_t *state = malloc(2 * bytes);
  must(a->policy, kvsift_snapshot_save(a->policy, state, bytes, &bytes));
  must(b->policy, kvsift_snapshot_save(b->policy, state + bytes, bytes, &other_bytes));
  expect(memcmp(state, state + bytes, bytes) == 0, "learning while attending leaves another state");
  free(state);
}

/* What a policy knows shows in its figures, in its bytes (the predictor's history has some that nothing reads), and in how it
 * goes on. */
static void expect_same_state(session *a, session *b) {
  if (a->config.method != KVSIFT_METHOD_ATTENTION_PREDICTOR) expect_same_bytes(a, b);
  kvsift_stats of_a = {.struct_size = sizeof of_a}, of_b = {.struct_size = sizeof of_b};
  must(a->policy, kvsift_get_stats(a->policy, &of_a));
  must(b->policy, kvsift_get_stats(b->policy, &of_b));
  expect(memcmp(&of_a, &of_b, sizeof of_a) == 0, "learning while attending counts otherwise");
  a->at_once = b->at_once = a->blind = b->blind = false;
  session_steps(a, 5);
  session_steps(b, 5);
  expect_same(a, b, "after learning while attending");
}

/* Learning while attending leaves the state that feeding the attention back does. */
static void at_once_property(subject *x) {
  session *apart = session_new(&x->config, x->toy), *at_once = session_new(&x->config, x->toy);
  apart->blind = at_once->at_once = true;
  at_once->one_head_a_time = random_below(&x->random, 3) == 0;
  session_prompt(apart, x->prompt);
  session_prompt(at_once, x->prompt);
  session_steps(apart, x->steps);
  session_steps(at_once, x->steps);
  expect_same(apart, at_once, "learning while attending");
  if ((apart->needs & KVSIFT_NEEDS_ATTENTION) != 0) expect_same_state(apart, at_once);
  session_free(apart);
  session_free(at_once);
}

static void test_at_once(void **state) {
  (void)state;
  each_subject(60, at_once_property);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_lists),    cmocka_unit_test(test_identity),         cmocka_unit_test(test_fork),
      cmocka_unit_test(test_snapshot), cmocka_unit_test(test_truncate),         cmocka_unit_test(test_refused_truncate),
      cmocka_unit_test(test_reset),    cmocka_unit_test(test_into_prompt),     cmocka_unit_test(test_at_once),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
