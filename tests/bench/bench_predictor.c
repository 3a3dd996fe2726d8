/* The predictor's network by itself: plain against incremental, and the cheaper forms, one history of 64 rows.
 *
 *     bench_predictor [--tokens 32768] [--heads 32] [--steps 100] [--scalar]
 *
 * "plain" and "incremental" see dense rows: every column has work. The other forms see rows as a policy does: drawn
 * like attention of a long context, every fifth one dense, the others keeping a budget of blocks; "incremental, sparse
 * rows" is what they are compared with. The time is the mean over the five places of a step between two calibrations of
 * the best step there, in processor time, which others on the machine disturb less. JSON, one object for each level
 * that runs here but the scalar one, which --scalar adds. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../support/predictor_probe.h"
#include "../support/random.h"
#include "peak.h"

enum { BLOCK = 16, ROWS = 64, CALIBRATION = 5, MOST_COLUMNS = 1 << 16 };

typedef struct form {
  const char *label;
  uint32_t plain, sparse, history, arithmetic;
  float floor;
} form;

static const form kForms[] = {
    {"plain", 1, 0, 0, 0, 0},
    {"incremental", 0, 0, 0, 0, 0},
    {"incremental, sparse rows", 0, 1, 0, 0, 0},
    {"history in 16 bits", 0, 1, 1, 0, 0},
    {"history in 8 bits", 0, 1, 2, 0, 0},
    {"int8 second convolution", 0, 1, 0, 1, 0},
    {"bf16 second convolution", 0, 1, 0, 2, 0},
    {"floor 0.0003", 0, 1, 0, 0, 0.0003f},
    {"floor 0.001", 0, 1, 0, 0, 0.001f},
    {"floor 0.003", 0, 1, 0, 0, 0.003f},
    {"floor 0.003, int8, 16 bits", 0, 1, 1, 1, 0.003f},
};
enum { FORMS = sizeof kForms / sizeof kForms[0] };

typedef struct timing {
  double seconds, columns; /* of a step; share of the plain form's columns over all steps */
} timing;

/* Shares with a heavy tail that drift slowly, as softmax rows pooled by maximum have. */
static void make_row(test_random *random, float *level, uint32_t columns, int dense, float *row) {
  double sum = 0;
  for (uint32_t j = 0; j < columns; ++j) {
    level[j] = 0.95f * level[j] + (random_unit(random) - 0.5f);
    row[j] = expf(2.5f * level[j]);
    sum += (double)row[j];
  }
  for (uint32_t j = 0; j < columns; ++j) {
    const int kept = dense || j < 4 || j + 4 >= columns || (level[j] > 1.7f && j % 2 == 0);
    row[j] = kept ? (float)(row[j] / sum) : 0;
  }
}

static double processor_seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static timing run(const form *f, uint32_t level, uint32_t tokens, uint32_t steps) {
  static float row[MOST_COLUMNS], scores[MOST_COLUMNS], drift[MOST_COLUMNS];
  test_random random = {1};
  double best[CALIBRATION], sum = 0;
  const uint32_t first = tokens / BLOCK;
  const probe_shape shape = {.level = level, .rows = ROWS, .columns = (tokens + steps + BLOCK) / BLOCK + 1, .left = 4,
                             .local = 4, .form = f->history, .floor = f->floor, .arithmetic = f->arithmetic};
  probe *p = probe_new(&shape);
  uint64_t computed, total, computed_before, total_before;
  memset(drift, 0, sizeof drift);
  for (uint32_t r = 0; r < ROWS; ++r) {
    make_row(&random, drift, first, !f->sparse || r % CALIBRATION == 0, row);
    probe_append(p, row, first);
  }
  probe_scores(p, (int)f->plain, scores);
  probe_counters(p, &computed_before, &total_before);
  for (uint32_t step = 1; step <= steps; ++step) {
    const uint32_t columns = (tokens + step + BLOCK - 1) / BLOCK;
    make_row(&random, drift, columns, !f->sparse || step % CALIBRATION == 0, row);
    probe_append(p, row, columns);
    const double start = processor_seconds();
    probe_scores(p, (int)f->plain, scores);
    const double seconds = processor_seconds() - start;
    double *place = &best[step % CALIBRATION];
    if (step <= CALIBRATION || seconds < *place) *place = seconds;
  }
  probe_counters(p, &computed, &total);
  probe_free(p);
  for (int i = 0; i < CALIBRATION; ++i) sum += best[i];
  return (timing){sum / CALIBRATION, (double)(computed - computed_before) / (double)(total - total_before)};
}

static uint32_t option(int argc, char **argv, const char *name, uint32_t otherwise) {
  for (int i = 1; i + 1 < argc; i += 2) {
    if (strcmp(argv[i], name) == 0) return (uint32_t)strtoul(argv[i + 1], NULL, 10);
  }
  return otherwise;
}

int main(int argc, char **argv) {
  const uint32_t tokens = option(argc, argv, "--tokens", 32768), heads = option(argc, argv, "--heads", 32);
  const uint32_t steps = option(argc, argv, "--steps", 100);
  const double peak = bench_peak_flops();
  const int scalar = argc > 1 && strcmp(argv[argc - 1], "--scalar") == 0;
  const uint64_t most = (uint64_t)(MOST_COLUMNS - 2) * BLOCK;
  if (tokens < 16 * BLOCK || steps < CALIBRATION || (uint64_t)tokens + steps > most) {
    fprintf(stderr, "--tokens must be 256 to about a million, --steps at least 5\n");
    return 2;
  }
  for (uint32_t level = 0; level < PROBE_LEVELS; ++level) {
    timing plain = {0, 0}, exact = {0, 0};
    if (probe_level_name(level) == NULL || (level == 0 && !scalar)) continue;
    printf("{\"bench\": \"predictor\", \"level\": \"%s\", \"tokens\": %u, ", probe_level_name(level), tokens);
    printf("\"rows\": %d, \"peak_gflops\": %.1f, \"forms\": [", ROWS, peak * 1e-9);
    for (uint32_t i = 0; i < FORMS; ++i) {
      const uint32_t count = level == 0 ? 5 : kForms[i].plain ? 15 : steps;
      const timing t = run(&kForms[i], level, tokens, count);
      if (i == 0) plain = t;
      if (i == 1 || i == 2) exact = t;
      const double columns = (double)tokens / BLOCK - 8;
      const double flops = 2.0 * 4608 * t.columns * columns * ROWS / t.seconds;
      printf("%s\n  {\"form\": \"%s\", ", i == 0 ? "" : ",", kForms[i].label);
      printf("\"us_per_head\": %.1f, \"us_per_layer\": %.0f, ", t.seconds * 1e6, t.seconds * 1e6 * heads);
      printf("\"times_faster_than_plain\": %.2f, ", plain.seconds / t.seconds);
      printf("\"times_faster_than_incremental\": %.2f, \"columns_of_plain\": %.4f, \"share_of_peak\": %.3f}",
             i == 0 ? 0 : exact.seconds / t.seconds, t.columns, i < 2 ? flops / peak : 0);
    }
    printf("\n]}\n");
  }
  return 0;
}
