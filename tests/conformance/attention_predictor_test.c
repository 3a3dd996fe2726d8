/* The published AttentionPredictor's own runs, step by step, on every instruction set, plain and incremental. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "golden_predictor.h"
#include "predictor_probe.h"

static const golden_case kCases[] = {
    {"random_base", "random_weights", 2, 700, 40, 320, 5},
    {"random_growing", "random_weights", 2, 160, 70, 192, 5},
    {"random_no_calibration", "random_weights", 1, 513, 24, 256, 0},
    {"random_short", "random_weights", 1, 90, 48, 256, 5},
    {"published_base", "published_weights", 4, 1000, 48, 384, 5},
    {"published_period_3", "published_weights", 2, 600, 30, 256, 3},
};

/* Marks the kept tokens of a step; returns how many blocks of the crop were chosen. */
static uint32_t choose(const golden_case *c, const float *scores, uint32_t right, uint32_t tokens,
                       unsigned char *kept) {
  const uint32_t left = GOLDEN_SINK / GOLDEN_BLOCK;
  uint32_t wanted = (c->budget - GOLDEN_SINK - GOLDEN_LOCAL) / GOLDEN_BLOCK, chosen = 0;
  unsigned char taken[GOLDEN_MAX_COLUMNS] = {0};
  for (uint32_t t = 0; t < tokens; ++t) kept[t] = t < GOLDEN_SINK || t + GOLDEN_LOCAL >= tokens;
  for (; chosen < wanted && left + chosen < right; ++chosen) {
    uint32_t best = right;
    for (uint32_t j = left; j < right; ++j) {
      if (!taken[j] && (best == right || scores[j] > scores[best])) best = j;
    }
    taken[best] = 1;
    for (uint32_t t = best * GOLDEN_BLOCK; t < (best + 1) * GOLDEN_BLOCK; ++t) kept[t] = 1;
  }
  return chosen;
}

/* The network's forms: how far scores may be from the golden ones, as a share of the largest. */
typedef struct network_form {
  uint32_t arithmetic;
  int plain;
  float tolerance;
} network_form;

/* A step's scores and choice against the golden ones. */
static void check_step(const golden_case *c, const golden_data *g, uint32_t head, uint32_t step, float tolerance,
                       const float *scores, uint32_t right, const unsigned char *kept) {
  const uint32_t left = GOLDEN_SINK / GOLDEN_BLOCK, columns = right - left;
  const float *expected = golden_predicted(g, head, step);
  const unsigned char *expected_kept = golden_kept(g, head, step);
  float scale = 0, cut = INFINITY;
  assert_int_equal(columns, g->predicted_cols[step]);
  for (uint32_t j = 0; j < columns; ++j) scale = fmaxf(scale, fabsf(expected[j]));
  for (uint32_t j = 0; j < columns; ++j) {
    if (!(fabsf(scores[left + j] - expected[j]) <= tolerance * scale)) {
      fail_msg("%s head %u step %u column %u: %.9g, expected %.9g", c->name, head, step, j,
               (double)scores[left + j], (double)expected[j]);
    }
  }
  for (uint32_t j = 0; j < columns; ++j) {
    if (kept[(left + j) * GOLDEN_BLOCK]) cut = fminf(cut, expected[j]);
  }
  for (uint32_t t = 0; t < (uint32_t)g->lens[step]; ++t) {
    if (kept[t] == expected_kept[t]) continue;
    const uint32_t j = t / GOLDEN_BLOCK - left;
    const int tie = j < columns && fabsf(expected[j] - cut) <= 2 * tolerance * scale;
    if (!tie) fail_msg("%s head %u step %u: token %u differs", c->name, head, step, t);
  }
}

static void run_head(const golden_case *c, const golden_data *g, uint32_t level, network_form form,
                     uint32_t head) {
  static float row[GOLDEN_MAX_COLUMNS], scores[GOLDEN_MAX_COLUMNS];
  static unsigned char kept[GOLDEN_MAX_COLUMNS * GOLDEN_BLOCK];
  const uint32_t last = blocks_of(g->lens[c->steps - 1]);
  const probe_shape shape = {.level = level, .rows = GOLDEN_ROWS, .columns = last,
                             .left = GOLDEN_SINK / GOLDEN_BLOCK, .local = GOLDEN_LOCAL / GOLDEN_BLOCK,
                             .arithmetic = form.arithmetic, .parameters = g->parameters};
  probe *p = probe_new(&shape);
  for (uint32_t r = 0; r < GOLDEN_ROWS; ++r) {
    golden_pool(golden_prefill_row(c, g, head, r), NULL, c->prompt, row);
    probe_append(p, row, blocks_of(c->prompt));
  }
  for (uint32_t step = 0; step < c->steps; ++step) {
    const uint32_t tokens = (uint32_t)g->lens[step];
    const uint32_t right = probe_scores(p, form.plain, scores);
    choose(c, scores, right, tokens, kept);
    check_step(c, g, head, step, form.tolerance, scores, right, kept);
    const int full = c->period != 0 && (step + 1) % c->period == 0;
    golden_pool(golden_decode_row(g, head, step), full ? NULL : golden_kept(g, head, step), tokens, row);
    probe_append(p, row, blocks_of(tokens));
  }
  for (uint32_t r = 0; r < GOLDEN_ROWS; ++r) {
    for (uint32_t j = 0; j < last; ++j) {
      const float expected = g->final_history[((size_t)head * GOLDEN_ROWS + r) * last + j];
      assert_true(fabsf(probe_share(p, r, j) - expected) <= 1e-6f);
    }
  }
  probe_free(p);
}

static void test_network(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof kCases / sizeof kCases[0]; ++i) {
    golden_data g;
    if (golden_load(&kCases[i], &g) != 0) {
      print_message("skipped %s: no golden data\n", kCases[i].name);
      assert_true(strncmp(kCases[i].name, "random", 6) != 0);
      continue;
    }
    for (uint32_t level = 0; level < PROBE_LEVELS; ++level) {
      if (probe_level_name(level) == NULL) continue;
      for (uint32_t head = 0; head < kCases[i].heads; ++head) {
        run_head(&kCases[i], &g, level, (network_form){.tolerance = 1e-5f}, head);
        if (head == 0) run_head(&kCases[i], &g, level, (network_form){.arithmetic = 2, .tolerance = 1e-2f}, head);
        /* The plain form takes seconds a head where multiply-add is a library call. */
        if (level > 0 || head == 0) run_head(&kCases[i], &g, level, (network_form){.plain = 1, .tolerance = 1e-5f}, head);
      }
    }
    golden_free(&g);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_network)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
