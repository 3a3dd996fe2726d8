/* Coresets of device policies beyond what random shapes reach: their way back, uploads of open and closed ones, refusals. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>

#include <cmocka.h>
#include <kvsift/balance.h>
#include <math.h>
#include <string.h>

#include "cases.h"
#include "device_session.h"
#include "gpu.h"

static kvsift_error error;

static kvsift_policy_config coreset_config(kvsift_method method, uint32_t rollback) {
  kvsift_policy_config c = {.struct_size = sizeof c};
  assert_int_equal(kvsift_policy_config_init(&c, method), KVSIFT_OK);
  c.layers = 1;
  c.kv_heads = 2;
  c.query_heads = 4;
  c.head_dim = 16;
  c.max_tokens = 400;
  c.block_tokens = c.page_tokens = 8;
  c.dense_layers = 0;
  c.dense_tokens = KVSIFT_DENSE_OFF;
  c.sink_tokens = 4;
  c.local_tokens = 6;
  c.budget_tokens = 32;
  c.tail = KVSIFT_TAIL_BALANCE;
  c.balance_halvings = 3;
  c.balance_group = 32;
  c.balance_streaming = 1;
  c.coreset_tokens = 128;
  c.rollback_tokens = rollback;
  c.error = &error;
  return c;
}

typedef struct pair {
  toy *t;
  session *s;
  device_session *d;
} pair;

static pair pair_of(const kvsift_policy_config *c, toy *t) { return (pair){t, session_new(c, t), device_session_new(c, t)}; }

static pair pair_new(const kvsift_policy_config *c) {
  return pair_of(c, toy_new(11, c, (toy_form){.type = KVSIFT_F16, .page_tokens = 16}));
}

static void pair_free(pair *p) {
  session_free(p->s);
  device_session_free(p->d);
  toy_free(p->t);
}

static void pair_prompt(const pair *p, uint32_t tokens) {
  session_prompt(p->s, tokens);
  device_prompt(p->d, tokens);
  expect_same_state(p->s, p->d);
}

static void pair_truncate(const pair *p, uint32_t tokens) {
  session_truncate(p->s, tokens);
  expect(kvsift_cuda_truncate(p->d->policy, tokens, gpu_stream()) == KVSIFT_OK, "%s", kvsift_cuda_last_error(p->d->policy));
  p->d->tokens = tokens;
  expect_same_state(p->s, p->d);
}

/* Both refuse, and nothing has changed. */
static void pair_refuse(const pair *p, uint32_t tokens) {
  assert_int_equal(kvsift_truncate(p->s->policy, tokens), KVSIFT_ROLLBACK);
  assert_int_equal(kvsift_cuda_truncate(p->d->policy, tokens, gpu_stream()), KVSIFT_ROLLBACK);
  assert_non_null(strstr(kvsift_cuda_last_error(p->d->policy), "config.rollback_tokens is"));
  expect_same_state(p->s, p->d);
}

/* Back over halvings at several levels, as far as there are backups, and on again. */
static void halvings_are_taken_back(void **state) {
  (void)state;
  const kvsift_policy_config c = coreset_config(KVSIFT_METHOD_BALANCE, 70);
  pair p = pair_new(&c);
  pair_prompt(&p, 138);
  pair_truncate(&p, 137);
  pair_truncate(&p, 70);
  pair_prompt(&p, 170);
  run_both(p.s, p.d, 3);
  pair_truncate(&p, 173);
  pair_refuse(&p, 60);
  run_both(p.s, p.d, 40);
  assert_true(p.d->weighted > 100);
  pair_free(&p);
}

/* Without backups only tokens that were never halved can go. */
static void whole_tokens_can_always_go(void **state) {
  (void)state;
  const kvsift_policy_config c = coreset_config(KVSIFT_METHOD_BALANCE, 0);
  pair p = pair_new(&c);
  pair_prompt(&p, 100);
  pair_truncate(&p, 74);
  pair_refuse(&p, 73);
  pair_prompt(&p, 1);
  run_both(p.s, p.d, 2);
  pair_free(&p);
}

/* The end of a prompt is taken back with the first decoded token, and what was decoded behind it needs no way back. */
static void an_end_is_taken_back(void **state) {
  (void)state;
  kvsift_policy_config c = coreset_config(KVSIFT_METHOD_BALANCE, 8);
  c.balance_streaming = 0;
  pair p = pair_new(&c);
  pair_prompt(&p, 120);
  run_both(p.s, p.d, 50);
  pair_truncate(&p, 125);
  run_both(p.s, p.d, 2);
  pair_truncate(&p, 118);
  pair_prompt(&p, 7);
  run_both(p.s, p.d, 3);
  pair_free(&p);
}

/* What only the device can tell: backups that an earlier truncation used up. */
static void used_up_backups_are_told(void **state) {
  (void)state;
  const kvsift_policy_config c = coreset_config(KVSIFT_METHOD_BALANCE, 20);
  pair p = pair_new(&c);
  pair_prompt(&p, 145);
  pair_truncate(&p, 130);
  assert_int_equal(kvsift_truncate(p.s->policy, 95), KVSIFT_ROLLBACK);
  assert_int_equal(kvsift_cuda_truncate(p.d->policy, 95, gpu_stream()), KVSIFT_OK);
  gpu_wait();
  assert_int_equal(kvsift_cuda_advance(p.d->policy, 1, gpu_stream()), KVSIFT_ROLLBACK);
  assert_int_equal(kvsift_cuda_policy_reset(p.d->policy, gpu_stream()), KVSIFT_OK);
  pair_free(&p);
}

static void upload_and_go_on(kvsift_method method, uint32_t streaming, uint32_t steps) {
  kvsift_policy_config c = coreset_config(method, 8);
  c.balance_streaming = streaming;
  pair p = pair_new(&c);
  session_prompt(p.s, 200);
  session_steps(p.s, steps);
  assert_int_equal(kvsift_cuda_upload(p.d->policy, p.s->policy, gpu_stream()), KVSIFT_OK);
  p.d->tokens = p.s->tokens;
  expect_same_state(p.s, p.d);
  run_both(p.s, p.d, 40);
  assert_true(p.d->weighted > 100);
  pair_free(&p);
}

static void uploaded_coresets_go_on(void **state) {
  (void)state;
  upload_and_go_on(KVSIFT_METHOD_BALANCE, 0, 0);
  upload_and_go_on(KVSIFT_METHOD_BALANCE, 0, 2);
  upload_and_go_on(KVSIFT_METHOD_BALANCE, 1, 2);
  upload_and_go_on(KVSIFT_METHOD_PAGE_STATS, 0, 2);
}

/* The largest groups take the walk that holds more sums, and rows of odd size are copied element by element. */
static void large_groups_and_odd_rows(void **state) {
  (void)state;
  kvsift_policy_config c = coreset_config(KVSIFT_METHOD_BALANCE, 0);
  c.balance_group = KVSIFT_BALANCE_MAX_GROUP;
  c.balance_halvings = 2;
  c.max_tokens = 1200;
  c.head_dim = 7;
  pair p = pair_new(&c);
  pair_prompt(&p, 1100);
  run_both(p.s, p.d, 1);
  pair_free(&p);
}

/* Halvings ahead of their turn read the call's rows as the copies will be: rounded to float16, of which these keys show it. */
static void rows_are_rounded_first(void **state) {
  (void)state;
  const kvsift_policy_config c = coreset_config(KVSIFT_METHOD_BALANCE, 0);
  toy *t = toy_new(11, &c, (toy_form){.type = KVSIFT_F32});
  float *x = (float *)t->keys[0].view.data;
  for (uint64_t i = 0; i < t->keys[0].bytes / sizeof *x; ++i) x[i] += 3000;
  pair p = pair_of(&c, t);
  pair_prompt(&p, 250);
  pair_prompt(&p, 140);
  pair_free(&p);
}

static void refuse(const kvsift_policy_config *c, const char *word) {
  kvsift_cuda_sizes sizes = {.struct_size = sizeof sizes};
  assert_int_equal(kvsift_cuda_policy_sizes(c, &sizes), KVSIFT_UNSUPPORTED);
  expect(strstr(error.message, word) != NULL, "%s", error.message);
}

static void other_forms_are_refused(void **state) {
  (void)state;
  kvsift_cuda_sizes sizes = {.struct_size = sizeof sizes};
  kvsift_policy_config c = coreset_config(KVSIFT_METHOD_QUEST, 0);
  assert_int_equal(kvsift_cuda_policy_sizes(&c, &sizes), KVSIFT_OK);
  c.balance_form = KVSIFT_BALANCE_GRADED;
  refuse(&c, "config.balance_form is 5");
  c.tail = KVSIFT_TAIL_NONE; /* then nothing goes by it */
  assert_int_equal(kvsift_cuda_policy_sizes(&c, &sizes), KVSIFT_OK);
  c = coreset_config(KVSIFT_METHOD_BALANCE, 0);
  c.balance_form = KVSIFT_BALANCE_RELATIVE;
  refuse(&c, "config.balance_form is");
  c.balance_form = KVSIFT_BALANCE_UNIFORM;
  assert_int_equal(kvsift_cuda_policy_sizes(&c, &sizes), KVSIFT_OK);
  c.balance_guard = 1;
  refuse(&c, "config.balance_guard is 1");
}

static void the_tail_alone_is_refused(void **state) {
  (void)state;
  const kvsift_policy_config c = coreset_config(KVSIFT_METHOD_BALANCE, 0);
  pair p = pair_new(&c);
  pair_prompt(&p, 100);
  device_layer(p.d, 0, 101, 101);
  const kvsift_query q = {.struct_size = sizeof q, .tokens = 101, .view = device_view(p.d, TOY_QUERY, 0, 100)};
  assert_int_equal(kvsift_cuda_attend_tail(p.d->policy, 0, &q, p.d->out, p.d->log_sum_exp, gpu_stream()), KVSIFT_UNSUPPORTED);
  assert_non_null(strstr(kvsift_cuda_last_error(p.d->policy), "config.tail"));
  device_advance(p.d, 1);
  pair_free(&p);
}

static void bad_rows_are_found(void **state) {
  (void)state;
  const kvsift_policy_config c = coreset_config(KVSIFT_METHOD_BALANCE, 0);
  pair p = pair_new(&c);
  const kvsift_view keys = device_view(p.d, TOY_KEY, 0, 0), values = device_view(p.d, TOY_VALUE, 0, 0);
  const uint16_t infinite = 0x7c00;
  uint16_t saved;
  uint8_t *element = (uint8_t *)values.data + 70 * values.token_stride;
  gpu_read(&saved, element, sizeof saved);
  gpu_write(element, &infinite, sizeof infinite);
  assert_int_equal(kvsift_cuda_observe_keys(p.d->policy, 0, NULL, 0, 100, &keys, NULL, gpu_stream()), KVSIFT_INVALID_ARGUMENT);
  assert_int_equal(kvsift_cuda_observe_keys(p.d->policy, 0, NULL, 0, 100, &keys, &values, gpu_stream()), KVSIFT_OK);
  gpu_wait();
  assert_int_equal(kvsift_cuda_advance(p.d->policy, 100, gpu_stream()), KVSIFT_NOT_FINITE);
  assert_non_null(strstr(kvsift_cuda_last_error(p.d->policy), "values"));
  gpu_write(element, &saved, sizeof saved);
  assert_int_equal(kvsift_cuda_policy_reset(p.d->policy, gpu_stream()), KVSIFT_OK);
  pair_prompt(&p, 100);
  pair_free(&p);
}

/* A failed launch anywhere in a step loses the policy. */
static void failed_launches_lose_the_policy(void **state) {
  (void)state;
  if (!gpu_is_mock()) {
    print_message("skipped: only the stand-in fails when told to\n");
    skip();
  }
  const kvsift_policy_config c = coreset_config(KVSIFT_METHOD_QUEST, 0);
  pair p = pair_new(&c);
  const kvsift_view keys = device_view(p.d, TOY_KEY, 0, 0), values = device_view(p.d, TOY_VALUE, 0, 0);
  const kvsift_query q = {.struct_size = sizeof q, .tokens = 100, .view = device_view(p.d, TOY_QUERY, 0, 99)};
  static const char *const kernels[] = {"kvsift_append_keys",  "kvsift_coreset_ahead", "kvsift_coreset_ahead",
                                        "kvsift_coreset_push", "kvsift_quest_scores",  "kvsift_choose",
                                        "kvsift_coreset_lists"};
  for (uint32_t i = 0; i < sizeof kernels / sizeof kernels[0]; ++i) {
    gpu_fail("cuLaunchKernelEx", i + 1, 719);
    kvsift_status status = kvsift_cuda_observe_keys(p.d->policy, 0, NULL, 0, 100, &keys, &values, gpu_stream());
    if (status == KVSIFT_OK) status = kvsift_cuda_select_blocks(p.d->policy, 0, &q, NULL, gpu_stream());
    assert_int_equal(status, KVSIFT_DEVICE);
    expect(strstr(kvsift_cuda_last_error(p.d->policy), kernels[i]) != NULL, "%s", kvsift_cuda_last_error(p.d->policy));
    assert_int_equal(kvsift_cuda_advance(p.d->policy, 0, gpu_stream()), KVSIFT_DEVICE);
    assert_int_equal(kvsift_cuda_policy_reset(p.d->policy, gpu_stream()), KVSIFT_OK);
    expect_same_state(p.s, p.d);
  }
  gpu_fail("cuLaunchKernelEx", 0, 0);
  pair_free(&p);
}

int main(void) {
  if (!gpu_open()) return 77;
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(halvings_are_taken_back), cmocka_unit_test(whole_tokens_can_always_go),
      cmocka_unit_test(an_end_is_taken_back), cmocka_unit_test(used_up_backups_are_told),
      cmocka_unit_test(uploaded_coresets_go_on), cmocka_unit_test(large_groups_and_odd_rows),
      cmocka_unit_test(rows_are_rounded_first),
      cmocka_unit_test(other_forms_are_refused), cmocka_unit_test(the_tail_alone_is_refused),
      cmocka_unit_test(bad_rows_are_found), cmocka_unit_test(failed_launches_lose_the_policy)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
