/* The theorem, statistically: on data of bounded norm the error of the self-balancing walk falls as one over the number of
 * kept tokens, that of independent signs as one over its root; for one compression and for the stream, whose memory stays
 * where it is however many tokens pass. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <kvsift/balance.h>

#include "balance_fixture.h"

enum { SEEDS = 8, QUERIES = 24, POINTS = 6 };

typedef struct problem {
  uint32_t tokens, dim;
  float radius;
} problem;

static const problem problems[] = {{4096, 16, 1.0f}, {4096, 32, 1.5f}};

/* A normal number, near enough: twelve uniforms. */
static float normal(test_random *r) {
  float sum = -6.0f;
  for (int i = 0; i < 12; ++i) sum += random_unit(r);
  return sum;
}

/* Points within a ball. */
static void fill_ball(float *rows, uint32_t count, const problem *p, test_random *r) {
  for (uint32_t i = 0; i < count; ++i) {
    float square = 0.0f;
    for (uint32_t c = 0; c < p->dim; ++c) {
      rows[i * p->dim + c] = normal(r);
      square += rows[i * p->dim + c] * rows[i * p->dim + c];
    }
    const float length = p->radius * powf(random_unit(r), 1.0f / (float)p->dim) / sqrtf(square);
    for (uint32_t c = 0; c < p->dim; ++c) rows[i * p->dim + c] *= length;
  }
}

typedef struct instance {
  balance_job job;
  float *queries;
  float *exact; /* [QUERIES][dim] */
} instance;

static void instance_init(instance *in, const problem *p, uint64_t seed) {
  test_random r = {seed * 77 + 1};
  balance_job_init(&in->job, KVSIFT_BALANCE_RELATIVE, p->tokens, p->dim, seed);
  in->queries = malloc(sizeof(float) * QUERIES * p->dim);
  in->exact = malloc(sizeof(float) * QUERIES * p->dim);
  fill_ball(in->job.keys, p->tokens, p, &r);
  fill_ball(in->queries, QUERIES, p, &r);
  for (uint32_t i = 0; i < p->tokens * p->dim; ++i) in->job.values[i] = normal(&r) / sqrtf((float)p->dim);
  for (uint32_t i = 0; i < p->tokens; ++i) {
    in->job.index[i] = i;
    in->job.weight[i] = 1.0f;
  }
  const kvsift_weighted all = {in->job.index, in->job.weight, p->tokens, 0};
  for (uint32_t q = 0; q < QUERIES; ++q) {
    assert_int_equal(kvsift_balance_attend(p->dim, 0.0f, in->queries + q * p->dim, &in->job.cache, 0, &all, NULL,
                                           in->exact + q * p->dim, NULL), KVSIFT_OK);
  }
}

static void instance_free(instance *in) {
  free(in->queries);
  free(in->exact);
  balance_job_free(&in->job);
}

/* Mean distance from exact attention. */
static double error_of(const instance *in, const kvsift_cache *cache, const kvsift_weighted *numerator,
                       const kvsift_weighted *denominator) {
  const uint32_t dim = in->job.config.head_dim;
  double sum = 0.0;
  for (uint32_t q = 0; q < QUERIES; ++q) {
    float out[KVSIFT_MAX_HEAD_DIM];
    double square = 0.0;
    assert_int_equal(kvsift_balance_attend(dim, 0.0f, in->queries + q * dim, cache, 0, numerator, denominator, out,
                                           NULL), KVSIFT_OK);
    for (uint32_t c = 0; c < dim; ++c) {
      const double d = (double)out[c] - (double)in->exact[q * dim + c];
      square += d * d;
    }
    sum += sqrt(square);
  }
  return sum / QUERIES;
}

static int ascending(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double median(double *x) {
  qsort(x, SEEDS, sizeof *x, ascending);
  return 0.5 * (x[SEEDS / 2 - 1] + x[SEEDS / 2]);
}

/* Of log y against log x. */
static double slope(const double *x, const double *y, int count) {
  double mx = 0.0, my = 0.0, xy = 0.0, xx = 0.0;
  for (int i = 0; i < count; ++i) {
    mx += log(x[i]) / count;
    my += log(y[i]) / count;
  }
  for (int i = 0; i < count; ++i) {
    xy += (log(x[i]) - mx) * (log(y[i]) - my);
    xx += (log(x[i]) - mx) * (log(x[i]) - mx);
  }
  return xy / xx;
}

/* Kept counts 64 .. 2048 of 4096: halvings 6 .. 1. */
static double walk_slope(const problem *p, uint32_t form, float gamma, double *at_256) {
  double errors[POINTS][SEEDS], medians[POINTS], kept[POINTS] = {0};
  for (uint32_t seed = 0; seed < SEEDS; ++seed) {
    instance in;
    instance_init(&in, p, seed);
    kvsift_error *sentence = in.job.config.error;
    in.job.config = balance_config(form, p->dim, sentence);
    in.job.config.gamma = gamma;
    in.job.config.temperature = 1.0f;
    in.job.config.group_tokens = 0;
    in.job.config.seed = seed;
    balance_resize(&in.job);
    for (uint32_t t = 1; t <= POINTS; ++t) {
      in.job.config.halvings = t;
      if (balance_run(&in.job) != KVSIFT_OK) fail_msg("%s", in.job.error.message);
      const kvsift_weighted set = {in.job.index, in.job.weight, in.job.count, 0};
      errors[t - 1][seed] = error_of(&in, &in.job.cache, &set, NULL);
      kept[t - 1] += (double)in.job.count / SEEDS;
    }
    instance_free(&in);
  }
  for (int i = 0; i < POINTS; ++i) medians[i] = median(errors[i]);
  *at_256 = medians[3];
  return slope(kept, medians, POINTS);
}

static void error_falls_with_the_kept_count(void **state) {
  (void)state;
  static const float gammas[] = {0.5f, 1.0f, 4.0f};
  for (size_t i = 0; i < sizeof problems / sizeof *problems; ++i) {
    double uniform = 0.0, walk = 0.0;
    const double flat = walk_slope(&problems[i], KVSIFT_BALANCE_UNIFORM, 0.0f, &uniform);
    print_message("dim %u: uniform, slope %.2f, error %.4f at 256\n", problems[i].dim, flat, uniform);
    assert_true(fabs(flat + 0.5) <= 0.15);
    for (size_t g = 0; g < sizeof gammas / sizeof *gammas; ++g) {
      for (uint32_t form = KVSIFT_BALANCE_THEORY; form <= KVSIFT_BALANCE_RELATIVE;
           form += KVSIFT_BALANCE_RELATIVE - KVSIFT_BALANCE_THEORY) {
        const double steep = walk_slope(&problems[i], form, gammas[g], &walk);
        print_message("dim %u: form %u, gamma %.1f, slope %.2f, error %.4f at 256\n", problems[i].dim, form,
                      (double)gammas[g], steep, walk);
        assert_true(fabs(steep + 1.0) <= 0.15);
        assert_true(walk < 0.5 * uniform);
      }
    }
  }
}

enum { SIZES = 5 };

typedef struct stream_run {
  uint32_t form;
  float gamma;
  problem p;
  uint32_t batches; /* tokens / batch; 0: p.tokens, whatever the batch */
} stream_run;

/* Median errors for batches of 32 to 512, and the mean size of the numerator. */
static void stream_errors(const stream_run *run, double *medians, double *kept) {
  for (uint32_t b = 0; b < SIZES; ++b) {
    const uint32_t batch = 32u << b;
    problem p = run->p;
    double errors[SEEDS];
    if (run->batches > 0) p.tokens = run->batches * batch;
    kept[b] = 0.0;
    for (uint32_t seed = 0; seed < SEEDS; ++seed) {
      instance in;
      instance_init(&in, &p, seed);
      kvsift_balance_stream_config c = stream_config(run->form, p.dim, batch, p.tokens, NULL);
      c.balance.gamma = run->gamma;
      c.balance.temperature = 1.0f;
      c.balance.seed = seed;
      c.buckets = 4;
      c.rollback_batches = 0;
      void *arena;
      kvsift_balance_stream *stream = stream_new(&c, &arena);
      assert_int_equal(kvsift_balance_stream_push(stream, &in.job.cache.keys, &in.job.cache.values, 0, p.tokens),
                       KVSIFT_OK);
      kvsift_balance_stream_view view = {0};
      view.struct_size = sizeof view;
      assert_int_equal(kvsift_balance_stream_read(stream, &view), KVSIFT_OK);
      errors[seed] = error_of(&in, &view.cache, &view.numerator, &view.denominator);
      kept[b] += (double)view.numerator.count / SEEDS;
      free(arena);
      instance_free(&in);
    }
    medians[b] = median(errors);
  }
}

/* The theorem's batch t and levels T = log2(n / t) give an error of about T / t. With T held (n grows with t) that is a
 * slope of -1 against what is kept. */
static void streams_error_falls_too(void **state) {
  (void)state;
  static const stream_run runs[] = {
      {KVSIFT_BALANCE_THEORY, 0.5f, {0, 32, 1.5f}, 16},   {KVSIFT_BALANCE_THEORY, 1.0f, {0, 32, 1.5f}, 16},
      {KVSIFT_BALANCE_THEORY, 4.0f, {0, 32, 1.5f}, 16},
      {KVSIFT_BALANCE_RELATIVE, 0.5f, {0, 32, 1.5f}, 16}, {KVSIFT_BALANCE_RELATIVE, 1.0f, {0, 32, 1.5f}, 16},
      {KVSIFT_BALANCE_RELATIVE, 4.0f, {0, 32, 1.5f}, 16},
      {KVSIFT_BALANCE_PRACTICAL, 4.0f, {0, 32, 1.5f}, 16}};
  double errors[SIZES], kept[SIZES];
  for (size_t i = 0; i < sizeof runs / sizeof *runs; ++i) {
    stream_errors(&runs[i], errors, kept);
    const double steep = slope(kept, errors, SIZES);
    print_message("stream of form %u, gamma %.1f, dim %u, 16 batches: slope %.2f, error %.4f with %.0f kept\n",
                  runs[i].form, (double)runs[i].gamma, runs[i].p.dim, steep, errors[2], kept[2]);
    assert_true(fabs(steep + 1.0) <= 0.15);
  }
  const stream_run uniform = {KVSIFT_BALANCE_UNIFORM, 0.0f, {0, 32, 1.5f}, 16};
  stream_errors(&uniform, errors, kept);
  print_message("stream of fair signs, 16 batches: slope %.2f, error %.4f with %.0f kept\n",
                slope(kept, errors, SIZES), errors[2], kept[2]);
  assert_true(fabs(slope(kept, errors, SIZES) + 0.5) <= 0.15);
}

/* With the tokens held, T falls as t grows: steeper than -1 by what T falls, and -1 for the error of one level. */
static void more_levels_add_their_errors(void **state) {
  (void)state;
  static const stream_run runs[] = {{KVSIFT_BALANCE_THEORY, 1.0f, {8192, 32, 1.5f}, 0},
                                    {KVSIFT_BALANCE_RELATIVE, 1.0f, {8192, 32, 1.5f}, 0},
                                    {KVSIFT_BALANCE_PRACTICAL, 4.0f, {8192, 32, 1.5f}, 0}};
  for (size_t i = 0; i < sizeof runs / sizeof *runs; ++i) {
    double errors[SIZES], kept[SIZES], of_level[SIZES];
    stream_errors(&runs[i], errors, kept);
    for (int b = 0; b < SIZES; ++b) of_level[b] = errors[b] / (8 - b);
    const double steep = slope(kept, errors, SIZES), level = slope(kept, of_level, SIZES);
    print_message("stream of form %u, gamma %.1f, 8192 tokens: slope %.2f, of the error of a level %.2f\n", runs[i].form,
                  (double)runs[i].gamma, steep, level);
    assert_true(steep <= -0.85 && steep >= -1.4);
    assert_true(fabs(level + 1.0) <= 0.25);
  }
}

/* Walks that fail are as rare as the theorem says: none in a share delta of them with its c, and the share of tokens at
 * which |y.eta| is beyond c R^2 falls as an exponential in c. */
static void failures_are_rare(void **state) {
  (void)state;
  static const float bounds[] = {0.25f, 0.5f, 1.0f, 2.0f, 4.0f, 0.0f}; /* c; 0: the theorem's, for delta 1/2 */
  enum { BOUNDS = 6 };
  const problem p = {4096, 16, 1.0f};
  double shares[BOUNDS];
  for (int b = 0; b < BOUNDS; ++b) {
    uint64_t tokens = 0, failures = 0;
    for (uint32_t seed = 0; seed < SEEDS; ++seed) {
      instance in;
      instance_init(&in, &p, seed);
      in.job.config = balance_config(KVSIFT_BALANCE_THEORY, p.dim, NULL);
      in.job.config.gamma = bounds[b] > 0.0f ? 0.5f / bounds[b] : 0.0f;
      in.job.config.failure_probability = 0.5f;
      in.job.config.halvings = 1;
      in.job.config.seed = seed;
      balance_resize(&in.job);
      assert_int_equal(balance_run(&in.job), KVSIFT_OK);
      tokens += in.job.stats.tokens;
      failures += in.job.stats.failures;
      instance_free(&in);
    }
    shares[b] = (double)failures / (double)tokens;
    print_message("c %.3f: %llu of %llu tokens beyond it\n", (double)bounds[b], (unsigned long long)failures,
                  (unsigned long long)tokens);
    if (b > 0) assert_true(shares[b] <= 0.5 * shares[b - 1]);
  }
  assert_true(shares[0] > 0.0 && shares[BOUNDS - 1] == 0.0);
}

static void streams_memory_is_flat(void **state) {
  (void)state;
  enum { CHUNK = 4096, DIM = 16, BATCH = 64 };
  const uint32_t chunks = 256; /* a million tokens */
  balance_job job;
  balance_job_init(&job, KVSIFT_BALANCE_PRACTICAL, CHUNK, DIM, 5);
  kvsift_balance_stream_config c = stream_config(KVSIFT_BALANCE_PRACTICAL, DIM, BATCH, chunks * CHUNK, NULL);
  uint64_t bytes = 0;
  assert_int_equal(kvsift_balance_stream_arena_size(&c, &bytes), KVSIFT_OK);
  void *arena = NULL;
  kvsift_balance_stream *stream = stream_new(&c, &arena);
  uint32_t most = 0, rows = 0, max_rows = 0;
  for (uint32_t i = 0; i < chunks; ++i) {
    assert_int_equal(kvsift_balance_stream_push(stream, &job.cache.keys, &job.cache.values, 0, CHUNK), KVSIFT_OK);
    assert_int_equal(kvsift_balance_stream_count(stream, NULL, &rows, &max_rows), KVSIFT_OK);
    if (rows > most) most = rows;
  }
  print_message("%u tokens: at most %u rows of %u, %llu bytes\n", chunks * CHUNK, most, max_rows,
                (unsigned long long)bytes);
  assert_true(most < max_rows && max_rows < 2048);
  assert_true(bytes < 2u << 20);
  kvsift_balance_stream_view view = {0};
  view.struct_size = sizeof view;
  assert_int_equal(kvsift_balance_stream_read(stream, &view), KVSIFT_OK);
  double sum = 0.0;
  for (uint32_t i = 0; i < view.numerator.count; ++i) sum += (double)view.numerator.weight[i];
  assert_true(fabs(sum / (double)(chunks * CHUNK) - 1.0) < 1e-3);
  free(arena);
  balance_job_free(&job);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(error_falls_with_the_kept_count),
                                     cmocka_unit_test(streams_error_falls_too),
                                     cmocka_unit_test(more_levels_add_their_errors),
                                     cmocka_unit_test(failures_are_rare),
                                     cmocka_unit_test(streams_memory_is_flat)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
