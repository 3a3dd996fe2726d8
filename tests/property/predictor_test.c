/* The incremental network against the plain one, bit for bit, over long random runs: rows dense and sparse, columns that
 * open, rows taken back, copies, several rows between evaluations. `--steps N` for longer runs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "predictor_probe.h"
#include "random.h"

enum { MAX_COLUMNS = 313, ROLLBACK = 12, LENGTHS = 1 << 16 };

static uint32_t g_steps = 10000;

/* A run: one history on each level, and one that is computed anew each time. */
typedef struct run {
  test_random random;
  probe_shape shape;
  probe *plain, *fast[PROBE_LEVELS];
  uint32_t block, tokens, period, rows, oldest; /* rows appended; the first that may not be taken back */
  uint32_t columns[LENGTHS];                    /* after each row */
} run;

static uint32_t best_level(void) {
  uint32_t best = 0;
  for (uint32_t l = 1; l < PROBE_LEVELS; ++l) best = probe_level_name(l) != NULL ? l : best;
  return best;
}

static void start(run *r, uint32_t seed) {
  memset(r, 0, sizeof *r);
  r->random.state = seed;
  test_random *random = &r->random;
  r->block = 16;
  r->tokens = 1 + random_below(random, 1u << (4 + random_below(random, 9)));
  r->period = random_below(random, 10);
  r->shape = (probe_shape){.level = best_level(), .rows = 5 + random_below(random, 60), .rollback = ROLLBACK,
                           .columns = MAX_COLUMNS, .left = random_below(random, 6),
                           .local = random_below(random, 6), .form = random_below(random, 3)};
  r->shape.floor = random_below(random, 2) == 0 ? 0 : 0.2f;
  r->shape.arithmetic = random_below(random, 3);
  if (!probe_has_bits(r->shape.arithmetic)) r->shape.arithmetic = 0;
  r->plain = probe_new(&r->shape);
  for (uint32_t l = 0; l < PROBE_LEVELS; ++l) {
    if (probe_level_name(l) == NULL || (l == 0 && seed % 8 != 0)) continue;
    probe_shape shape = r->shape;
    shape.level = l;
    shape.no_vnni = random_below(random, 2);
    r->fast[l] = probe_new(&shape);
  }
}

static void finish(run *r) {
  probe_free(r->plain);
  for (uint32_t l = 0; l < PROBE_LEVELS; ++l) {
    if (r->fast[l] != NULL) probe_free(r->fast[l]);
  }
}

/* A calibration row is dense, another keeps a few places. */
static void append(run *r) {
  float row[MAX_COLUMNS];
  const uint32_t columns = (r->tokens + r->block - 1) / r->block;
  const int dense = r->period != 0 && r->rows % r->period == 0;
  for (uint32_t j = 0; j < columns; ++j) {
    row[j] = dense || random_below(&r->random, 12) == 0 ? random_unit(&r->random) : 0;
  }
  probe_append(r->plain, row, columns);
  for (uint32_t l = 0; l < PROBE_LEVELS; ++l) {
    if (r->fast[l] != NULL) probe_append(r->fast[l], row, columns);
  }
  r->columns[r->rows++] = columns;
  if (r->tokens < 5000) ++r->tokens;
  if (r->rows > ROLLBACK && r->oldest < r->rows - ROLLBACK) r->oldest = r->rows - ROLLBACK;
}

static void take_back(run *r) {
  const uint32_t most = r->rows - r->oldest;
  const uint32_t rows = random_below(&r->random, most + 1);
  if (rows == 0 || rows == r->rows) return;
  r->rows -= rows;
  r->tokens -= rows < r->tokens ? rows : r->tokens - 1;
  const uint32_t columns = r->columns[r->rows - 1];
  if (r->tokens < (columns - 1) * r->block + 1) r->tokens = (columns - 1) * r->block + 1;
  assert_true(probe_can_truncate(r->plain, rows));
  probe_truncate(r->plain, rows, columns);
  for (uint32_t l = 0; l < PROBE_LEVELS; ++l) {
    if (r->fast[l] != NULL) probe_truncate(r->fast[l], rows, columns);
  }
}

/* Goes on with a copy, in other memory. */
static void fork_all(run *r) {
  for (uint32_t l = 0; l < PROBE_LEVELS; ++l) {
    if (r->fast[l] == NULL) continue;
    probe *copy = probe_copy(r->fast[l]);
    probe_free(r->fast[l]);
    r->fast[l] = copy;
  }
}

static void compare(const run *r) {
  float expected[MAX_COLUMNS], scores[MAX_COLUMNS];
  const uint32_t left = r->shape.left;
  const uint32_t right = probe_scores(r->plain, 1, expected);
  for (uint32_t l = 0; l < PROBE_LEVELS; ++l) {
    if (r->fast[l] == NULL) continue;
    memset(scores, 0xff, sizeof scores);
    assert_int_equal(probe_scores(r->fast[l], 0, scores), right);
    assert_true(right >= left);
    assert_memory_equal(scores + left, expected + left, (right - left) * sizeof(float));
  }
}

static void test_runs(void **state) {
  (void)state;
  static run r;
  uint64_t computed = 0, total = 0;
  for (uint32_t seed = 0, steps = 0; steps < g_steps; ++seed) {
    start(&r, seed);
    const uint32_t length = 20 + random_below(&r.random, 300);
    for (uint32_t i = 0; i < length && r.rows + 8 < LENGTHS; ++i, ++steps) {
      const uint32_t rows = random_below(&r.random, 8) == 0 ? 1 + random_below(&r.random, 6) : 1;
      for (uint32_t n = 0; n < rows; ++n) append(&r);
      if (random_below(&r.random, 16) == 0) take_back(&r);
      if (random_below(&r.random, 32) == 0) fork_all(&r);
      if (random_below(&r.random, 8) != 0) compare(&r);
      if (random_below(&r.random, 64) == 0) r.tokens += random_below(&r.random, 200);
      if (r.tokens > 5000) r.tokens = 5000;
    }
    uint64_t c, t;
    probe_counters(r.fast[best_level()], &c, &t);
    computed += c;
    total += t;
    finish(&r);
  }
  print_message("%u steps; %.1f%% of the plain form's columns computed\n", g_steps,
                100.0 * (double)computed / (double)total);
  assert_true(computed * 3 < total);
}

int main(int argc, char **argv) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_runs)};
  const char *cases = getenv("KVSIFT_TEST_CASES"); /* slow machines, see cases.h */
  if (cases != NULL) g_steps = 100 * (uint32_t)strtoul(cases, NULL, 10);
  if (argc == 3 && strcmp(argv[1], "--steps") == 0) g_steps = (uint32_t)strtoul(argv[2], NULL, 10);
  return cmocka_run_group_tests(tests, NULL, NULL);
}
