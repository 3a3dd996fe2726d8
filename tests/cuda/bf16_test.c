/* The predictor's bf16 form on tensor cores beside the CPU's: sums have another order there, so scores are compared by
 * tolerance and choices by how many blocks they have in common. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>

#include <cmocka.h>

#include "cases.h"
#include "device_session.h"
#include "gpu.h"
#include "naive_predictor.h"
#include "predictor_probe.h"
#include "random.h"

enum { DEVICE = 1, BF16 = 2, MOST_ROWS = 64, MOST_COLUMNS = 120 };

/* Of the largest score. Now and then the first convolution's last bits make a middle channel the next bf16; what rounding itself
 * does to scores is several times that. */
static const float kTolerance = 1e-3f;

typedef struct window {
  probe_shape shape;
  uint32_t rows;
  float shares[MOST_ROWS][MOST_COLUMNS];
} window;

/* Shares as softmax rows pooled by maximum have them, of which about one in `thin` is not zero. */
static void fill(test_random *r, window *w, uint32_t thin) {
  float level[MOST_COLUMNS] = {0};
  for (uint32_t i = 0; i < w->rows; ++i) {
    for (uint32_t j = 0; j < w->shape.columns; ++j) {
      level[j] = 0.9f * level[j] + random_unit(r) - 0.5f;
      w->shares[i][j] = random_below(r, thin) == 0 ? fminf(expf(3 * level[j] - 4), 1) : 0;
    }
  }
}

static float largest(const float *x, uint32_t count) {
  float most = 0;
  for (uint32_t j = 0; j < count; ++j) most = fmaxf(most, fabsf(x[j]));
  return most;
}

static void expect_near(const float *got, const float *expected, uint32_t columns, float tolerance, const char *what) {
  const float scale = largest(expected, columns);
  for (uint32_t j = 0; j < columns; ++j) {
    expect(fabsf(got[j] - expected[j]) <= tolerance * scale, "%s: column %u of %u is %.9g, not %.9g of at most %.9g", what, j,
           columns, (double)got[j], (double)expected[j], (double)scale);
  }
}

/* How many of the best `wanted` columns are among the best of both. */
static uint32_t in_common(const float *a, const float *b, uint32_t columns, uint32_t wanted) {
  uint32_t common = 0;
  for (uint32_t j = 0; j < columns; ++j) {
    uint32_t ahead_in_a = 0, ahead_in_b = 0;
    for (uint32_t i = 0; i < columns; ++i) {
      ahead_in_a += a[i] > a[j] || (a[i] == a[j] && i < j);
      ahead_in_b += b[i] > b[j] || (b[i] == b[j] && i < j);
    }
    common += ahead_in_a < wanted && ahead_in_b < wanted;
  }
  return common;
}

static struct {
  uint64_t chosen, common;
} seen;

static void check_window(const window *w) {
  static float expected[MOST_COLUMNS], scores[2][MOST_COLUMNS], kept[MOST_ROWS * MOST_COLUMNS];
  const uint32_t left = w->shape.left, columns = w->shape.columns - w->shape.local - left;
  probe *p = probe_new(&w->shape);
  for (uint32_t r = 0; r < w->rows; ++r) {
    probe_append(p, w->shares[r], w->shape.columns);
    if (r + 3 >= w->rows || r % 5 == 0) probe_scores(p, 0, scores[0]);
  }
  probe_scores(p, 1, scores[1]);
  for (uint32_t r = 0; r < w->rows; ++r) {
    for (uint32_t j = 0; j < columns; ++j) kept[r * columns + j] = probe_share(p, r, left + j);
  }
  probe_free(p);
  naive_scores(probe_default_parameters(), kept, (int)w->rows, (int)columns, BF16, expected);
  expect_near(scores[0] + left, expected, columns, kTolerance, "incremental");
  /* The two differ in the constants of empty neighbourhoods alone, which are the CPU's. */
  expect_near(scores[1] + left, scores[0] + left, columns, 1e-6f, "plain");
  seen.chosen += 1 + columns / 4;
  seen.common += in_common(scores[0] + left, expected, columns, 1 + columns / 4);
}

static void scores_are_near(void **state) {
  (void)state;
  static window w;
  for (uint32_t round = 0; round < 24; ++round) {
    test_random r = {round + 1};
    const bool large = round % 12 == 0;
    w.shape = (probe_shape){.level = DEVICE, .rows = large ? MOST_ROWS : 12, .left = random_below(&r, 5),
                            .local = random_below(&r, 5), .form = round % 3, .arithmetic = BF16};
    w.shape.columns = large ? MOST_COLUMNS : 13 + random_below(&r, 80);
    w.shape.floor = round % 2 == 0 ? 0 : 0.01f;
    w.rows = large ? MOST_ROWS : 1 + random_below(&r, 12);
    fill(&r, &w, 1 + round % 6 * 6);
    check_window(&w);
  }
  print_message("%llu of %llu blocks are the CPU's\n", (unsigned long long)seen.common, (unsigned long long)seen.chosen);
  assert_true(seen.common * 1000 >= seen.chosen * 995);
}

/* ---- by the public header: both policies see the CPU's attention ---- */

static void count_common(const kvsift_selection *cpu, const kvsift_cuda_selection *device) {
  uint32_t count, *blocks = malloc(4ull * cpu->block_stride);
  for (uint32_t list = 0; list < cpu->lists; ++list) {
    const uint32_t *of_cpu = cpu->blocks + (uint64_t)list * cpu->block_stride;
    gpu_read(&count, device->lists.block_counts + list, sizeof count);
    expect(count <= cpu->block_stride, "%u blocks", count);
    gpu_read(blocks, device->lists.blocks + (uint64_t)list * device->lists.block_stride, sizeof *blocks * count);
    if (cpu->everything) continue;
    for (uint32_t i = 0, j = 0; i < count; ++i) {
      while (j < cpu->block_counts[list] && of_cpu[j] < blocks[i]) ++j;
      seen.common += j < cpu->block_counts[list] && of_cpu[j] == blocks[i];
    }
    seen.chosen += cpu->block_counts[list];
  }
  free(blocks);
}

static void choose_on_device(session *s, const session_answer *answer) {
  device_session *d = s->context;
  const uint32_t layer = answer->layer, tokens = answer->tokens;
  const kvsift_view keys = device_view(d, TOY_KEY, layer, tokens - 1), values = device_view(d, TOY_VALUE, layer, tokens - 1);
  kvsift_query q = {.struct_size = sizeof q, .tokens = tokens, .rows = 1, .view = device_view(d, TOY_QUERY, layer, tokens - 1)};
  kvsift_cuda_selection selection = {.struct_size = sizeof selection};
  kvsift_observation o = *answer->observation;
  const uint64_t heads = s->config.query_heads, floats = heads * o.block_stride;
  kvsift_status status = kvsift_cuda_observe_keys(d->policy, layer, NULL, tokens - 1, 1, &keys, &values, gpu_stream());
  if (status == KVSIFT_OK) status = kvsift_cuda_select_blocks(d->policy, layer, &q, &selection, gpu_stream());
  expect(status == KVSIFT_OK, "%s", kvsift_cuda_last_error(d->policy));
  count_common(answer->selection, &selection);
  gpu_write(d->block_max, o.block_max, 4 * floats);
  gpu_write(d->block_mass, o.block_mass, 4 * floats);
  gpu_write(d->log_sum_exp, o.log_sum_exp, 4 * heads);
  o.block_max = d->block_max, o.block_mass = d->block_mass, o.log_sum_exp = d->log_sum_exp;
  status = kvsift_cuda_observe_attention(d->policy, layer, &q, &o, gpu_stream());
  expect(status == KVSIFT_OK, "%s", kvsift_cuda_last_error(d->policy));
}

static void choices_are_alike(void **state) {
  (void)state;
  seen.common = seen.chosen = 0;
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    kvsift_policy_config c = {.struct_size = sizeof c};
    assert_int_equal(kvsift_policy_config_init(&c, KVSIFT_METHOD_ATTENTION_PREDICTOR), KVSIFT_OK);
    c.layers = 2, c.dense_layers = 0, c.kv_heads = 2, c.query_heads = 4, c.head_dim = 16, c.max_tokens = 400;
    c.block_tokens = 4, c.budget_tokens = 80, c.sink_tokens = 8, c.local_tokens = 16, c.history_rows = 24;
    c.dense_tokens = KVSIFT_DENSE_OFF, c.calibration_dense = 0, c.predictor_arithmetic = KVSIFT_BF16;
    c.grouping = (uint32_t)seed % 3;
    toy *t = toy_new(seed, &c, (toy_form){.type = KVSIFT_F16});
    session *s = session_new(&c, t);
    device_session *d = device_session_new(&c, t);
    session_prompt(s, 320);
    device_prompt(d, 320);
    s->look = choose_on_device, s->context = d;
    for (uint32_t step = 0; step < 8; ++step) {
      session_steps(s, 1);
      device_advance(d, 1);
    }
    session_free(s);
    device_session_free(d);
    toy_free(t);
  }
  print_message("%llu of %llu blocks are the CPU's\n", (unsigned long long)seen.common, (unsigned long long)seen.chosen);
  assert_true(seen.chosen > 1000 && seen.common * 1000 >= seen.chosen * 995);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(scores_are_near), cmocka_unit_test(choices_are_alike)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
