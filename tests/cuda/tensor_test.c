/* Attention on tensor cores beside the CPU's exact one: outputs by tolerance, everything else to the bit. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "cases.h"
#include "device_session.h"
#include "gpu.h"
#include "random.h"

/* Of the largest output. What bfloat16 queries and weights leave beyond their second part is 2^-16 of them. */
static float tolerance_of(kvsift_type type) { return type == KVSIFT_F16 ? 2e-5f : 1e-4f; }

static const kvsift_method kMethods[] = {KVSIFT_METHOD_FULL, KVSIFT_METHOD_STREAMING, KVSIFT_METHOD_QUEST,
                                         KVSIFT_METHOD_PAGE_STATS, KVSIFT_METHOD_PAGE_STATS};

static kvsift_policy_config pick_config(test_random *r, kvsift_method method) {
  kvsift_policy_config c = {.struct_size = sizeof c};
  assert_int_equal(kvsift_policy_config_init(&c, method), KVSIFT_OK);
  c.layers = 2, c.dense_layers = random_below(r, 2), c.kv_heads = 1 + random_below(r, 3);
  c.query_heads = c.kv_heads * (1 + random_below(r, 8));
  c.head_dim = 16 * (1 + random_below(r, 8));
  c.max_tokens = 60 + random_below(r, 900);
  c.sink_tokens = random_below(r, 20), c.local_tokens = 1 + random_below(r, 40);
  c.budget_tokens = c.sink_tokens + c.local_tokens + random_below(r, c.max_tokens / 2), c.budget_share = 0;
  c.block_tokens = c.page_tokens = 4u << random_below(r, 4);
  c.grouping = random_below(r, 2) == 0 ? KVSIFT_GROUP_MEAN : KVSIFT_GROUP_QUERY_HEAD;
  c.dense_tokens = random_below(r, 4) == 0 ? 0 : KVSIFT_DENSE_OFF;
  c.moments_type = random_below(r, 2) == 0 ? KVSIFT_F16 : KVSIFT_I8;
  if (method == KVSIFT_METHOD_PAGE_STATS) c.tail = random_below(r, 3) == 0 ? KVSIFT_TAIL_NONE : KVSIFT_TAIL_MOMENTS;
  if (method == KVSIFT_METHOD_FULL) c.budget_tokens = 0;
  c.tensor_attention = 1;
  return c;
}

static struct {
  uint64_t runs, sparse, inexact, pages;
} seen;

static void run(uint64_t seed, const kvsift_policy_config *config, toy_form form, bool exact) {
  toy *t = toy_new(seed, config, form);
  session *s = session_new(config, t);
  device_session *d = device_session_new(config, t);
  assert_true(s != NULL && d != NULL);
  const uint32_t prompt = config->max_tokens - 4;
  for (uint32_t layer = 0; layer < config->layers; ++layer) session_keys(s, layer, prompt);
  must(s->policy, kvsift_advance(s->policy, prompt));
  s->tokens = prompt;
  device_prompt(d, prompt);
  d->tolerance = exact ? 1e-30f : tolerance_of(form.type);
  run_both(s, d, 3);
  kvsift_stats stats = {.struct_size = sizeof stats};
  must(s->policy, kvsift_get_stats(s->policy, &stats));
  assert_true(exact == (d->inexact == 0));
  ++seen.runs;
  seen.sparse += stats.selections > 0;
  seen.pages += stats.selections > 0 && config->tail == KVSIFT_TAIL_MOMENTS;
  session_free(s);
  device_session_free(d);
  toy_free(t);
}

static void outputs_are_near(void **state) {
  (void)state;
  for (cases c = cases_begin(60); cases_next(&c);) {
    test_random r = {c.seed};
    const kvsift_method method = kMethods[c.seed % 5];
    cases_name("%s on tensor cores", kvsift_method_name(method));
    const kvsift_policy_config config = pick_config(&r, method);
    toy_form form = {.type = random_below(&r, 3) == 0 ? KVSIFT_BF16 : KVSIFT_F16, .page_tokens = random_below(&r, 2) * (8u << random_below(&r, 3))};
    form.heads_first = random_below(&r, 2) != 0;
    form.gap = 16 * random_below(&r, 2);
    run(c.seed, &config, form, false);
  }
  print_message("%llu runs, %llu sparse, %llu with pages\n", (unsigned long long)seen.runs, (unsigned long long)seen.sparse,
                (unsigned long long)seen.pages);
  if (seen.runs >= 60) assert_true(seen.sparse > 20 && seen.pages > 8);
}

/* So many KV heads that each has one block of a device, or two: a warp's ring goes round more than once, a block takes several
 * rounds of a list and several chunks of pages. */
static kvsift_policy_config long_config(test_random *r, uint32_t i) {
  kvsift_policy_config c = {.struct_size = sizeof c};
  const bool full = i % 2 == 0;
  assert_int_equal(kvsift_policy_config_init(&c, full ? KVSIFT_METHOD_FULL : KVSIFT_METHOD_PAGE_STATS), KVSIFT_OK);
  c.layers = 1, c.dense_layers = 0;
  c.kv_heads = gpu_is_mock() ? 2 : i % 4 < 2 ? 48 : 70;
  c.query_heads = c.kv_heads * (1 + random_below(r, 8));
  c.head_dim = 16 * (1 + random_below(r, 3));
  c.max_tokens = gpu_is_mock() ? 800 : 3300 + random_below(r, 1000);
  c.budget_tokens = full ? 0 : gpu_is_mock() ? 600 : 1300, c.budget_share = 0;
  c.block_tokens = c.page_tokens = gpu_is_mock() ? 2 : 4, c.sink_tokens = 16, c.local_tokens = 32;
  c.grouping = random_below(r, 2) == 0 ? KVSIFT_GROUP_MEAN : KVSIFT_GROUP_QUERY_HEAD;
  c.dense_tokens = KVSIFT_DENSE_OFF;
  c.moments_type = random_below(r, 2) == 0 ? KVSIFT_F16 : KVSIFT_I8;
  if (!full) c.tail = KVSIFT_TAIL_MOMENTS;
  c.tensor_attention = 1;
  return c;
}

static void long_caches_are_near(void **state) {
  (void)state;
  for (uint32_t i = 0; i < 8; ++i) {
    test_random r = {i + 100};
    cases_name("tensor cores, long, case %u", i);
    const kvsift_policy_config config = long_config(&r, i);
    const toy_form form = {.type = i % 3 == 0 ? KVSIFT_BF16 : KVSIFT_F16, .page_tokens = random_below(&r, 2) * 16};
    run(i + 100, &config, form, false);
  }
}

/* What tensor cores do not do is exact. */
static void others_are_exact(void **state) {
  (void)state;
  for (uint32_t i = 0; i < 4; ++i) {
    test_random r = {i + 7};
    kvsift_policy_config config = pick_config(&r, KVSIFT_METHOD_PAGE_STATS);
    toy_form form = {.type = i == 0 ? KVSIFT_F32 : i == 1 ? KVSIFT_I8 : KVSIFT_F16};
    if (i == 2) config.head_dim = 40;
    if (i == 3) config.kv_heads = 1, config.query_heads = 9;
    cases_name("exact beside tensor cores, case %u", i);
    run(i + 1, &config, form, true);
  }
}

static kvsift_policy_config small_config(void) {
  kvsift_policy_config c = {.struct_size = sizeof c};
  assert_int_equal(kvsift_policy_config_init(&c, KVSIFT_METHOD_PAGE_STATS), KVSIFT_OK);
  c.layers = 1, c.dense_layers = 0, c.kv_heads = 2, c.query_heads = 6, c.head_dim = 32, c.max_tokens = 300;
  c.sink_tokens = 4, c.local_tokens = 16, c.budget_tokens = 100, c.budget_share = 0, c.dense_tokens = KVSIFT_DENSE_OFF;
  c.tail = KVSIFT_TAIL_MOMENTS, c.grouping = KVSIFT_GROUP_MEAN, c.tensor_attention = 1;
  return c;
}

/* A step over 16-bit rows whose element at `bad` (null: none) is NaN, attended to with the queries of the step `asked`: what
 * the device tells of it. */
static void expect_told(toy_form form, toy_kind bad, bool spoils, bool misses, uint32_t asked, kvsift_status wanted,
                        const char *word) {
  const kvsift_policy_config config = small_config();
  const uint32_t tokens = 280;
  toy *t = toy_new(11, &config, form);
  device_session *d = device_session_new(&config, t);
  const uint16_t not_a_number = 0x7fff;
  const int32_t missing = -1;
  device_prompt(d, tokens);
  const kvsift_cache cache = device_cache(d, 0, tokens + 1);
  if (spoils) gpu_write((void *)(bad == TOY_KEY ? cache.keys : cache.values).data, &not_a_number, sizeof not_a_number);
  if (misses) gpu_write((void *)cache.block_table, &missing, sizeof missing);
  const kvsift_view key = device_view(d, TOY_KEY, 0, tokens), value = device_view(d, TOY_VALUE, 0, tokens);
  kvsift_query q = {.struct_size = sizeof q, .tokens = tokens + 1, .view = device_view(d, TOY_QUERY, 0, tokens)};
  assert_int_equal(kvsift_cuda_observe_keys(d->policy, 0, NULL, tokens, 1, &key, &value, gpu_stream()), KVSIFT_OK);
  assert_int_equal(kvsift_cuda_select_blocks(d->policy, 0, &q, NULL, gpu_stream()), KVSIFT_OK);
  q.view = device_view(d, TOY_QUERY, 0, asked);
  assert_int_equal(kvsift_cuda_attend(d->policy, 0, &q, &cache, d->out, NULL, gpu_stream()), KVSIFT_OK);
  gpu_wait();
  const kvsift_status status = kvsift_cuda_advance(d->policy, 1, gpu_stream());
  expect(status == wanted, "status %d, not %d: %s", status, wanted, kvsift_cuda_last_error(d->policy));
  expect(strstr(kvsift_cuda_last_error(d->policy), word) != NULL, "%s", kvsift_cuda_last_error(d->policy));
  device_session_free(d);
  toy_free(t);
}

static void bad_rows_are_told(void **state) {
  (void)state;
  const toy_form plain = {.type = KVSIFT_F16}, rounded = {.type = KVSIFT_BF16}, paged = {.type = KVSIFT_F16, .page_tokens = 16};
  const toy_form exact = {.type = KVSIFT_F32}; /* not for tensor cores */
  const uint32_t same = 280;
  expect_told(plain, TOY_KEY, false, false, same, KVSIFT_OK, "");
  expect_told(plain, TOY_KEY, true, false, same, KVSIFT_NOT_FINITE, "attention");
  expect_told(rounded, TOY_VALUE, true, false, same, KVSIFT_NOT_FINITE, "attention");
  expect_told(paged, TOY_KEY, false, true, same, KVSIFT_INVALID_ARGUMENT, "block_table");
  expect_told(plain, TOY_KEY, false, false, same - 1, KVSIFT_INVALID_ARGUMENT, "query");
  expect_told(exact, TOY_KEY, false, false, same - 1, KVSIFT_INVALID_ARGUMENT, "query");
}

int main(void) {
  if (!gpu_open()) return 77;
  const struct CMUnitTest tests[] = {cmocka_unit_test(outputs_are_near), cmocka_unit_test(long_caches_are_near),
                                     cmocka_unit_test(others_are_exact), cmocka_unit_test(bad_rows_are_told)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
