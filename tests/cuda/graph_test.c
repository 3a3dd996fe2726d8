/* A decode step captured once and replayed while the cache grows, against steps made one by one: outputs and the state. Also
 * that no call after create allocates or waits. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "cases.h"
#include "device_session.h"
#include "gpu.h"

enum { PROMPT = 70, EMULATED_REPLAYS = 11, REPLAYS = 1000 };

static uint32_t replays(void) { return gpu_is_mock() ? EMULATED_REPLAYS : REPLAYS; }

#define must_on(d, status) expect((status) == KVSIFT_OK, "%s", kvsift_cuda_last_error((d)->policy))

/* What is replayed: a method, its tail, whether its coreset goes on while decoding, and whether attention runs on tensor cores,
 * where nothing is observed. */
typedef struct replayed {
  kvsift_method method;
  uint32_t tail, streaming, tensor;
} replayed;

static kvsift_policy_config config_of(kvsift_method method) {
  kvsift_policy_config c = {.struct_size = sizeof c};
  assert_int_equal(kvsift_policy_config_init(&c, method), KVSIFT_OK);
  c.layers = 2;
  c.kv_heads = 2;
  c.query_heads = 8;
  c.head_dim = 32;
  c.max_tokens = PROMPT + replays() + 8;
  c.block_tokens = c.page_tokens = 8;
  c.dense_layers = 1;
  c.dense_tokens = KVSIFT_DENSE_OFF;
  c.sink_tokens = 8;
  c.local_tokens = 8;
  c.budget_tokens = 40;
  c.calibration_period = 3;
  c.calibration_dense = 0;
  c.rollback_tokens = 2;
  return c;
}

/* The rows of one token where a graph reads them. */
typedef struct staging {
  void *rows[3]; /* query, key, value */
} staging;

static const uint8_t *row_of_token(const toy *t, toy_kind kind, uint32_t layer, uint32_t token, uint64_t *bytes) {
  const kvsift_view view = toy_view(t, kind, layer, token);
  *bytes = view.token_stride;
  return view.data;
}

static void stage(const toy *t, const staging *to, uint32_t layer, uint32_t token) {
  for (uint32_t kind = 0; kind < 3; ++kind) {
    uint64_t bytes;
    const uint8_t *row = row_of_token(t, kind, layer, token, &bytes);
    gpu_write(to->rows[kind], row, bytes);
  }
}

static staging new_staging(const toy *t) {
  staging s;
  for (uint32_t kind = 0; kind < 3; ++kind) {
    uint64_t bytes;
    (void)row_of_token(t, kind, 0, 0, &bytes);
    s.rows[kind] = gpu_new(bytes, NULL);
  }
  return s;
}

static kvsift_view staged_view(const toy *t, const staging *s, toy_kind kind) {
  kvsift_view view = toy_view(t, kind, 0, 0);
  view.data = s->rows[kind];
  return view;
}

static void captured_layer(device_session *d, const staging *s, uint32_t layer) {
  kvsift_query q = {.struct_size = sizeof q, .view = staged_view(d->toy, s, TOY_QUERY)};
  const kvsift_view key = staged_view(d->toy, s, TOY_KEY), value = staged_view(d->toy, s, TOY_VALUE);
  kvsift_cache cache = device_cache(d, layer, 0);
  kvsift_cuda_selection selection = {.struct_size = sizeof selection};
  kvsift_observation o = {.struct_size = sizeof o, .block_stride = d->block_stride, .block_max = d->block_max,
                          .block_mass = d->block_mass, .log_sum_exp = d->log_sum_exp};
  must_on(d, kvsift_cuda_observe_keys(d->policy, layer, NULL, KVSIFT_CUDA_NEXT, 1, &key, &value, gpu_stream()));
  must_on(d, kvsift_cuda_select_blocks(d->policy, layer, &q, &selection, gpu_stream()));
  const bool observes = d->tolerance == 0;
  must_on(d, kvsift_cuda_attend(d->policy, layer, &q, &cache, d->out, observes ? &o : NULL, gpu_stream()));
  if (observes) must_on(d, kvsift_cuda_observe_attention(d->policy, layer, NULL, &o, gpu_stream()));
}

/* One eager step with its attention fed back. */
static void eager_step(device_session *d) {
  const uint32_t tokens = d->tokens + 1;
  for (uint32_t layer = 0; layer < d->config.layers; ++layer) {
    device_layer(d, layer, tokens, tokens);
    if (d->tolerance > 0) continue;
    kvsift_observation o = {.struct_size = sizeof o, .tokens = tokens, .block_stride = d->block_stride,
                            .block_max = d->block_max, .block_mass = d->block_mass, .log_sum_exp = d->log_sum_exp};
    const uint32_t step = tokens - PROMPT;
    const bool learns = d->config.method == KVSIFT_METHOD_EMA || d->config.method == KVSIFT_METHOD_ATTENTION_PREDICTOR;
    o.full = d->config.method == KVSIFT_METHOD_FULL || (learns && step % d->config.calibration_period == 0);
    must_on(d, kvsift_cuda_observe_attention(d->policy, layer, NULL, &o, gpu_stream()));
  }
  device_advance(d, 1);
}

static void expect_same_device_state(const device_session *a, const device_session *b) {
  session *s = session_new(&a->config, a->toy);
  must_on(a, kvsift_cuda_download(a->policy, s->policy, gpu_stream()));
  gpu_wait();
  expect_same_state(s, b);
  session_free(s);
}

static void expect_same_out(const device_session *a, const device_session *b) {
  const size_t bytes = sizeof(float) * a->config.query_heads * a->config.head_dim;
  float *x = malloc(bytes), *y = malloc(bytes);
  gpu_read(x, a->out, bytes);
  gpu_read(y, b->out, bytes);
  expect(memcmp(x, y, bytes) == 0, "outputs differ at %u tokens", a->tokens);
  free(x);
  free(y);
}

/* Coresets are halved in the prompt and again on the way. */
static kvsift_policy_config config_for(const replayed *what) {
  kvsift_policy_config c = config_of(what->method);
  c.tail = what->tail;
  c.balance_group = 32;
  c.balance_streaming = what->streaming;
  c.coreset_tokens = c.max_tokens;
  c.tensor_attention = what->tensor;
  return c;
}

static void replay_equals_eager(const replayed *what) {
  const kvsift_policy_config config = config_for(what);
  toy *t = toy_new(5, &config, (toy_form){.type = KVSIFT_F16, .page_tokens = 16});
  device_session *eager = device_session_new(&config, t), *graph = device_session_new(&config, t);
  const staging staged[2] = {new_staging(t), new_staging(t)};
  cases_name("%s replayed, tail %u, tensor cores %u", kvsift_method_name(config.method), config.tail, config.tensor_attention);
  eager->tolerance = graph->tolerance = (float)what->tensor;
  device_prompt(eager, PROMPT);
  device_prompt(graph, PROMPT);
  gpu_wait();
  gpu_begin_capture();
  for (uint32_t layer = 0; layer < config.layers; ++layer) captured_layer(graph, &staged[layer], layer);
  must_on(graph, kvsift_cuda_advance(graph->policy, 1, gpu_stream()));
  CUgraphExec step = gpu_end_capture();
  for (uint32_t i = 0; i < replays(); ++i) {
    for (uint32_t layer = 0; layer < config.layers; ++layer) stage(t, &staged[layer], layer, PROMPT + i);
    gpu_replay(step);
    eager_step(eager);
    expect_same_out(eager, graph);
  }
  graph->tokens = PROMPT + replays();
  must_on(graph, kvsift_cuda_replayed(graph->policy, replays(), 1));
  expect_same_device_state(eager, graph);
  eager_step(eager);
  eager_step(graph);
  expect_same_device_state(eager, graph);
  gpu_free_graph(step);
  for (uint32_t i = 0; i < 6; ++i) gpu_free(staged[i / 3].rows[i % 3]);
  device_session_free(eager);
  device_session_free(graph);
  toy_free(t);
}

static void graphs_equal_steps(void **state) {
  (void)state;
  enum { NONE = KVSIFT_TAIL_NONE, BALANCE = KVSIFT_TAIL_BALANCE, MOMENTS = KVSIFT_TAIL_MOMENTS };
  static const replayed all[] = {{KVSIFT_METHOD_FULL, NONE, 0, 0},       {KVSIFT_METHOD_STREAMING, NONE, 0, 0},
                                 {KVSIFT_METHOD_H2O, NONE, 0, 0},        {KVSIFT_METHOD_QUEST, NONE, 0, 0},
                                 {KVSIFT_METHOD_PAGE_STATS, NONE, 0, 0}, {KVSIFT_METHOD_PAGE_STATS, BALANCE, 0, 0},
                                 {KVSIFT_METHOD_EMA, NONE, 0, 0},        {KVSIFT_METHOD_ATTENTION_PREDICTOR, NONE, 0, 0},
                                 {KVSIFT_METHOD_BALANCE, BALANCE, 0, 0}, {KVSIFT_METHOD_BALANCE, BALANCE, 1, 0},
                                 {KVSIFT_METHOD_FULL, NONE, 0, 1},       {KVSIFT_METHOD_PAGE_STATS, MOMENTS, 0, 0},
                                 {KVSIFT_METHOD_PAGE_STATS, MOMENTS, 0, 1}};
  for (size_t i = 0; i < sizeof all / sizeof all[0]; ++i) replay_equals_eager(&all[i]);
}

static void calls_neither_allocate_nor_wait(void **state) {
  (void)state;
  if (!gpu_is_mock()) {
    print_message("skipped: only the stand-in counts calls\n");
    skip();
  }
  const kvsift_policy_config config = config_of(KVSIFT_METHOD_PAGE_STATS);
  toy *t = toy_new(6, &config, (toy_form){.type = KVSIFT_BF16});
  device_session *d = device_session_new(&config, t);
  const uint64_t before = gpu_calls(NULL), launched = gpu_calls("cuLaunchKernelEx");
  device_prompt(d, PROMPT);
  eager_step(d);
  eager_step(d);
  assert_int_equal(gpu_calls(NULL), before);
  assert_true(gpu_calls("cuLaunchKernelEx") > launched + 20);
  device_session_free(d);
  toy_free(t);
}

int main(void) {
  if (!gpu_open()) return 77;
  const struct CMUnitTest tests[] = {cmocka_unit_test(graphs_equal_steps), cmocka_unit_test(calls_neither_allocate_nor_wait)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
