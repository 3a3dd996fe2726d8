/* Device policies against CPU policies over random shapes: selections, outputs, observations and the state, bit for bit. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <kvsift/balance.h>
#include <stdlib.h>
#include <string.h>

#include "cases.h"
#include "device_session.h"
#include "gpu.h"
#include "random.h"
#include "shapes.h"

static kvsift_method method_of_test;

static toy_form pick_form(test_random *r) {
  static const kvsift_type types[] = {KVSIFT_F16, KVSIFT_F16, KVSIFT_BF16, KVSIFT_I8, KVSIFT_F32};
  toy_form form = {.type = types[random_below(r, 5)]};
  if (random_below(r, 2) == 0) form.page_tokens = 1u << random_below(r, 6);
  form.table_per_head = random_below(r, 2) == 0;
  form.heads_first = random_below(r, 2) == 0;
  form.gap = random_below(r, 3) == 0 ? 8 * random_below(r, 2) + 8 : random_below(r, 3);
  return form;
}

/* What does not run on the device is left out; contexts are long enough for several chunks, and coresets, at times. */
static kvsift_policy_config pick_config(test_random *r) {
  kvsift_policy_config c = shape_config(r, method_of_test);
  c.balance_guard = 0;
  if (c.balance_form != KVSIFT_BALANCE_UNIFORM) c.balance_form = KVSIFT_BALANCE_PRACTICAL;
  if (c.predictor_arithmetic == KVSIFT_BF16) c.predictor_arithmetic = KVSIFT_F32; /* not the CPU's bits: bf16_test.c */
  c.tensor_attention = random_below(r, 2); /* exact where something is observed */
  if (random_below(r, 4) > 0) c.dense_tokens = KVSIFT_DENSE_OFF;
  if (c.layers > 2) c.layers = 2;
  if (c.dense_layers >= c.layers) c.dense_layers = 0;
  if (random_below(r, 3) == 0) c.max_tokens += 400 + random_below(r, 500);
  if (c.tail == KVSIFT_TAIL_BALANCE && c.max_tokens > 400) c.balance_group = 32 + 2 * random_below(r, 200);
  return c;
}

/* What the cases were about, so that the test says when they became empty. */
static struct {
  uint64_t lists, calibrations, weighted, runs, targets, missed, long_prompts;
} seen;

static void count_seen(const session *s, const device_session *d) {
  kvsift_stats stats = {.struct_size = sizeof stats};
  must(s->policy, kvsift_get_stats(s->policy, &stats));
  seen.lists += stats.selections;
  seen.calibrations += stats.calibrations;
  seen.weighted += d->weighted;
  seen.targets += s->config.target_mass > 0;
  seen.missed += d->missed;
  ++seen.runs;
}

/* Some tokens are taken back from both. */
static void go_back(session *s, device_session *d, uint32_t tokens) {
  session_truncate(s, s->tokens - tokens);
  expect(kvsift_cuda_truncate(d->policy, s->tokens, gpu_stream()) == KVSIFT_OK, "%s", kvsift_cuda_last_error(d->policy));
  d->tokens = s->tokens;
  expect_same_state(s, d);
}

static void run_case(uint64_t seed) {
  test_random r = {seed};
  const kvsift_policy_config config = pick_config(&r);
  toy *t = toy_new(seed, &config, pick_form(&r));
  session *s = session_new(&config, t);
  device_session *d = device_session_new(&config, t);
  if (s != NULL && d != NULL) {
    const uint32_t prompt = random_below(&r, config.max_tokens - 10);
    const uint32_t first = prompt > 0 ? random_below(&r, prompt) : 0;
    session_prompt(s, first);
    device_prompt(d, first);
    expect_same_state(s, d);
    prompt_both(s, d, prompt - first);
    seen.long_prompts += prompt > 256 && first < prompt;
    expect_same_state(s, d);
    const uint32_t steps = 1 + random_below(&r, 8);
    run_both(s, d, steps);
    count_seen(s, d);
    go_back(s, d, random_below(&r, (steps < config.rollback_tokens ? steps : config.rollback_tokens) + 1));
    run_both(s, d, 1);
  }
  session_free(s);
  device_session_free(d);
  toy_free(t);
}

static void bits_are_the_cpus(void **state) {
  (void)state;
  for (cases c = cases_begin(method_of_test == KVSIFT_METHOD_ATTENTION_PREDICTOR ? 40 : 20); cases_next(&c);) {
    cases_name("%s on the device", kvsift_method_name(method_of_test));
    run_case(c.seed);
  }
  print_message("%llu runs, %llu sparse lists, %llu calibrated; %llu runs with a target, %llu blocks missed, "
                "%llu long prompts, %llu weighted tokens\n",
                (unsigned long long)seen.runs, (unsigned long long)seen.lists, (unsigned long long)seen.calibrations,
                (unsigned long long)seen.targets, (unsigned long long)seen.missed, (unsigned long long)seen.long_prompts,
                (unsigned long long)seen.weighted);
  if (seen.runs < 20) return;
  const int early = method_of_test == KVSIFT_METHOD_EMA || method_of_test == KVSIFT_METHOD_ATTENTION_PREDICTOR;
  assert_true(method_of_test == KVSIFT_METHOD_FULL || seen.lists > 100);
  assert_true(seen.long_prompts > 1 && (!early || seen.missed > 20));
  assert_true(method_of_test == KVSIFT_METHOD_BALANCE ? seen.weighted > 1000 : seen.targets > 0);
}

/* Caches so long that on a device each warp takes a chunk of its own where everything is attended to, with lists and pages of
 * many chunks. Prompts leave no attention rows, which the CPU would take long for; EMA calibrates at each step. */
static kvsift_policy_config long_config(test_random *r) {
  kvsift_policy_config c = {.struct_size = sizeof c};
  assert_int_equal(kvsift_policy_config_init(&c, method_of_test), KVSIFT_OK);
  c.layers = 1, c.dense_layers = 0;
  c.kv_heads = gpu_is_mock() ? 2 : 48;
  c.query_heads = c.kv_heads * (1 + random_below(r, 8));
  c.head_dim = 8 * (1 + random_below(r, 16));
  c.max_tokens = gpu_is_mock() ? 800 : 3300 + random_below(r, 3000);
  c.budget_tokens = gpu_is_mock() ? 100 : 300 + random_below(r, 900), c.budget_share = 0;
  c.block_tokens = c.page_tokens = gpu_is_mock() ? 16 : 4, c.sink_tokens = 16, c.local_tokens = 32;
  c.grouping = random_below(r, 2) == 0 ? KVSIFT_GROUP_MEAN : KVSIFT_GROUP_QUERY_HEAD;
  c.dense_tokens = KVSIFT_DENSE_OFF;
  if (method_of_test == KVSIFT_METHOD_FULL) c.budget_tokens = 0;
  if (method_of_test == KVSIFT_METHOD_PAGE_STATS) c.tail = KVSIFT_TAIL_MOMENTS;
  if (method_of_test == KVSIFT_METHOD_EMA) c.calibration_period = 1, c.calibration_dense = 0;
  return c;
}

/* Keys and values alone. */
static void long_prompt(session *s, device_session *d, uint32_t tokens) {
  const kvsift_view keys = device_view(d, TOY_KEY, 0, 0), values = device_view(d, TOY_VALUE, 0, 0);
  session_keys(s, 0, tokens);
  must(s->policy, kvsift_advance(s->policy, tokens));
  s->tokens = tokens;
  must(NULL, kvsift_cuda_observe_keys(d->policy, 0, NULL, 0, tokens, &keys, &values, gpu_stream()));
  device_advance(d, tokens);
}

/* In rows of 96 elements the lanes of a warp do not come out even. EMA's last chunk is so short that all its rows come at once.
 * Where shared memory is small, as in the tests named _apart, the last one has more chunks than a block has warps. */
static void run_long(uint64_t seed) {
  static const kvsift_type types[] = {KVSIFT_F16, KVSIFT_BF16, KVSIFT_I8, KVSIFT_F32};
  test_random r = {seed + 1000};
  kvsift_policy_config config = long_config(&r);
  if (seed == 1) config.head_dim = 96;
  if (types[seed % 4] == KVSIFT_I8) config.head_dim = (config.head_dim + 15) / 16 * 16; /* rows of whole pieces of 16 bytes */
  if (seed % 2 == 0 && method_of_test == KVSIFT_METHOD_EMA) config.block_tokens = 24;   /* some lie in two chunks of 256 */
  if (seed == 4 && gpu_is_mock()) config.head_dim = 128, config.max_tokens = 2200;
  const toy_form form = {.type = types[seed % 4], .page_tokens = random_below(&r, 2) * 16, .heads_first = random_below(&r, 2) != 0};
  toy *t = toy_new(seed, &config, form);
  session *s = session_new(&config, t);
  device_session *d = device_session_new(&config, t);
  const uint32_t most = config.max_tokens - 4, prompt = method_of_test == KVSIFT_METHOD_EMA ? most / 256 * 256 : most;
  long_prompt(s, d, prompt);
  run_both(s, d, 2);
  session_free(s);
  device_session_free(d);
  toy_free(t);
}

static void long_caches(void **state) {
  (void)state;
  for (uint64_t seed = 1; seed <= (gpu_is_mock() ? 4 : 8); ++seed) {
    cases_name("%s on the device, long, seed %u", kvsift_method_name(method_of_test), (unsigned)seed);
    run_long(seed);
  }
}

/* A step whose attention rows a kernel of the caller's own gives, token by token. */
static void feed_rows(session *s, device_session *d, test_random *r) {
  const uint32_t tokens = s->tokens + 1, heads = s->config.query_heads;
  float *rows = calloc((size_t)heads * tokens, sizeof *rows);
  assert_non_null(rows);
  for (uint32_t h = 0; h < heads; ++h) rows[h * tokens + random_below(r, tokens)] = random_unit(r);
  session_keys(s, 0, 1);
  device_layer(d, 0, tokens, tokens);
  const kvsift_query none = {.struct_size = sizeof none, .tokens = tokens};
  kvsift_selection chosen = {.struct_size = sizeof chosen};
  must(s->policy, kvsift_select_blocks(s->policy, 0, &none, &chosen));
  kvsift_observation o = {.struct_size = sizeof o, .tokens = tokens, .full = 1, .rows = rows, .row_stride = tokens};
  must(s->policy, kvsift_observe_attention(s->policy, 0, NULL, &o));
  o.rows = gpu_new((size_t)heads * tokens * sizeof *rows, rows);
  expect(kvsift_cuda_observe_attention(d->policy, 0, NULL, &o, gpu_stream()) == KVSIFT_OK, "%s", kvsift_cuda_last_error(d->policy));
  must(s->policy, kvsift_advance(s->policy, 1));
  device_advance(d, 1);
  s->tokens = tokens;
  expect_same_state(s, d);
  gpu_free((void *)o.rows);
  free(rows);
}

static void rows_of_another_kernel(void **state) {
  (void)state;
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    test_random r = {seed + 2000};
    cases_name("%s on the device, rows of another kernel, seed %u", kvsift_method_name(method_of_test), (unsigned)seed);
    kvsift_policy_config config = long_config(&r);
    config.kv_heads = 2, config.query_heads = 2 * (1 + random_below(&r, 4)), config.max_tokens = 300, config.budget_tokens = 100;
    config.block_tokens = config.page_tokens = 8;
    toy *t = toy_new(seed, &config, (toy_form){.type = KVSIFT_F32});
    session *s = session_new(&config, t);
    device_session *d = device_session_new(&config, t);
    assert_true(s != NULL && d != NULL);
    long_prompt(s, d, 200);
    for (uint32_t step = 0; step < 6; ++step) feed_rows(s, d, &r);
    session_free(s);
    device_session_free(d);
    toy_free(t);
  }
}

int main(int argc, char **argv) {
  if (!gpu_open()) return 77;
  if (argc < 2 || kvsift_method_from_name(argv[1], &method_of_test) != KVSIFT_OK) return 2;
  const struct CMUnitTest all[] = {cmocka_unit_test(bits_are_the_cpus)};
  const struct CMUnitTest with_rows[] = {cmocka_unit_test(bits_are_the_cpus), cmocka_unit_test(long_caches),
                                         cmocka_unit_test(rows_of_another_kernel)};
  const struct CMUnitTest with_long[] = {cmocka_unit_test(bits_are_the_cpus), cmocka_unit_test(long_caches)};
  switch (method_of_test) {
    case KVSIFT_METHOD_FULL:
    case KVSIFT_METHOD_STREAMING:
    case KVSIFT_METHOD_QUEST:
    case KVSIFT_METHOD_PAGE_STATS: return cmocka_run_group_tests_name(argv[1], with_long, NULL, NULL);
    case KVSIFT_METHOD_EMA: return cmocka_run_group_tests_name(argv[1], with_rows, NULL, NULL);
    default: return cmocka_run_group_tests_name(argv[1], all, NULL, NULL);
  }
}
