/* BalanceKV: what is refused, and the figures of small cases that can be worked out by hand. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <kvsift/balance.h>

#include "balance_fixture.h"

static void refuses_bad_configs(void **state) {
  (void)state;
  kvsift_error error = {0};
  kvsift_balance_config c = balance_config(KVSIFT_BALANCE_PRACTICAL, 8, &error);
  uint64_t bytes = 0;
  assert_int_equal(kvsift_balance_scratch_size(&c, 100, &bytes), KVSIFT_OK);
  assert_int_equal(kvsift_balance_scratch_size(NULL, 100, &bytes), KVSIFT_INVALID_ARGUMENT);
  assert_int_equal(kvsift_balance_scratch_size(&c, 0, &bytes), KVSIFT_INVALID_ARGUMENT);
  assert_non_null(strstr(error.message, "tokens is 0"));
  assert_int_equal(kvsift_balance_scratch_size(&c, 3, &bytes), KVSIFT_INVALID_ARGUMENT);
  assert_non_null(strstr(error.message, "2 halvings leave nothing of 3 tokens"));
#define REFUSED(field, value, expected)                                              \
  do {                                                                               \
    kvsift_balance_config bad = c;                                                   \
    bad.field = value;                                                               \
    error.message[0] = '\0';                                                         \
    assert_int_equal(kvsift_balance_scratch_size(&bad, 100, &bytes), expected);      \
    assert_non_null(strstr(error.message, #field));                                  \
  } while (0)
  REFUSED(head_dim, 0, KVSIFT_INVALID_ARGUMENT);
  REFUSED(head_dim, KVSIFT_MAX_HEAD_DIM + 1, KVSIFT_INVALID_ARGUMENT);
  REFUSED(form, 99, KVSIFT_INVALID_ARGUMENT);
  REFUSED(halvings, 0, KVSIFT_INVALID_ARGUMENT);
  REFUSED(halvings, 7, KVSIFT_INVALID_ARGUMENT);
  REFUSED(group_tokens, 31, KVSIFT_INVALID_ARGUMENT);
  REFUSED(group_tokens, 513, KVSIFT_INVALID_ARGUMENT);
  REFUSED(weights, 2, KVSIFT_INVALID_ARGUMENT);
  REFUSED(gamma, -1.0f, KVSIFT_INVALID_ARGUMENT);
  REFUSED(gamma, NAN, KVSIFT_NOT_FINITE);
  REFUSED(temperature, INFINITY, KVSIFT_NOT_FINITE);
  REFUSED(value_offset, -0.5f, KVSIFT_INVALID_ARGUMENT);
  REFUSED(failure_probability, 0.0f, KVSIFT_INVALID_ARGUMENT);
  REFUSED(guard, 2, KVSIFT_INVALID_ARGUMENT);
#undef REFUSED
  c.struct_size = 8;
  assert_int_equal(kvsift_balance_scratch_size(&c, 100, &bytes), KVSIFT_INVALID_STRUCT_SIZE);
  assert_int_equal(kvsift_balance_config_init(&c, KVSIFT_BALANCE_PRACTICAL), KVSIFT_INVALID_STRUCT_SIZE);
}

/* A failed call must leave what it was given untouched. */
static void expect_refusal(balance_job *job, kvsift_status expected, const char *words) {
  memset(job->index, 0xab, job->capacity * sizeof *job->index);
  job->count = 12345;
  assert_int_equal(balance_run(job), expected);
  assert_non_null(strstr(job->error.message, words));
  assert_int_equal(job->count, 12345);
  for (uint32_t i = 0; i < job->capacity; ++i) assert_int_equal(job->index[i], 0xabababab);
}

static void refuses_bad_input(void **state) {
  (void)state;
  balance_job job;
  balance_job_init(&job, KVSIFT_BALANCE_PRACTICAL, 200, 24, 1);
  expect_refusal((job.range.end = 0, &job), KVSIFT_INVALID_ARGUMENT, "range");
  expect_refusal((job.range.end = 201, &job), KVSIFT_INVALID_ARGUMENT, "range");
  expect_refusal((job.range.end = 3, &job), KVSIFT_INVALID_ARGUMENT, "halvings");
  job.range.end = 200;
  job.scratch_bytes -= 1;
  expect_refusal(&job, KVSIFT_ARENA_TOO_SMALL, "does not fit");
  job.scratch_bytes += 1;
  job.scratch = (char *)job.scratch + 4;
  expect_refusal(&job, KVSIFT_MISALIGNED, "scratch");
  job.scratch = (char *)job.scratch - 4;
  const uint32_t capacity = job.capacity;
  job.capacity = 49;
  expect_refusal(&job, KVSIFT_INVALID_ARGUMENT, "capacity");
  job.capacity = capacity;
  job.keys[137 * 24 + 5] = NAN;
  expect_refusal(&job, KVSIFT_NOT_FINITE, "key of token 137");
  job.keys[137 * 24 + 5] = 0.0f;
  job.values[199 * 24 + 23] = -INFINITY;
  expect_refusal(&job, KVSIFT_NOT_FINITE, "value of token 199");
  job.values[199 * 24 + 23] = 0.0f;
  job.cache.keys.type = 9;
  expect_refusal(&job, KVSIFT_INVALID_ARGUMENT, "type");
  job.cache.keys.type = KVSIFT_I8;
  expect_refusal(&job, KVSIFT_INVALID_ARGUMENT, "scales");
  job.cache.keys.type = KVSIFT_F32;
  job.cache.keys.token_stride += 2;
  expect_refusal(&job, KVSIFT_MISALIGNED, "strides");
  job.cache.keys.token_stride -= 2;
  job.config.form = KVSIFT_BALANCE_CUBLAS;
  expect_refusal(&job, KVSIFT_UNSUPPORTED, "form is 6: by cuBLASLt on a CUDA device only");
  job.config.form = 7;
  expect_refusal(&job, KVSIFT_INVALID_ARGUMENT, "form is 7");
  job.config.form = KVSIFT_BALANCE_PRACTICAL;
  assert_int_equal(balance_run(&job), KVSIFT_OK);
  assert_int_equal(job.count, 50);
  balance_job_free(&job);
}

static void keeps_the_count_of_short_inputs(void **state) {
  (void)state;
  for (uint32_t tokens = 2; tokens < 70; ++tokens) {
    balance_job job;
    balance_job_init(&job, KVSIFT_BALANCE_PRACTICAL, tokens, 5, tokens);
    job.config.halvings = 1;
    job.config.group_tokens = 32;
    balance_resize(&job);
    assert_int_equal(balance_run(&job), KVSIFT_OK);
    assert_int_equal(job.count, tokens / 2);
    balance_job_free(&job);
  }
  balance_job job;
  balance_job_init(&job, KVSIFT_BALANCE_PRACTICAL, 1, 5, 1);
  expect_refusal(&job, KVSIFT_INVALID_ARGUMENT, "leave nothing of 1 tokens");
  balance_job_free(&job);
}

static void survives_zero_vectors(void **state) {
  (void)state;
  for (uint32_t form = KVSIFT_BALANCE_PRACTICAL; form <= KVSIFT_BALANCE_RELATIVE; ++form) {
    balance_job job;
    balance_job_init(&job, form, 96, 16, 3);
    memset(job.keys, 0, 96 * 16 * sizeof(float));
    memset(job.values, 0, 96 * 16 * sizeof(float));
    job.config.value_offset = 0.0f;
    assert_int_equal(balance_run(&job), KVSIFT_OK);
    assert_true(job.count >= 1 && job.count <= 24);
    assert_true(fabsf(balance_weight_sum(&job) - 96.0f) < 0.01f);
    balance_job_free(&job);
  }
}

/* Keys so long that the exponential would be infinite: it saturates, and stats say how often. */
static void saturates_long_keys(void **state) {
  (void)state;
  balance_job job;
  balance_job_init(&job, KVSIFT_BALANCE_PRACTICAL, 256, 32, 4);
  assert_int_equal(balance_run(&job), KVSIFT_OK);
  assert_int_equal(job.stats.saturated, 0);
  for (uint32_t i = 0; i < 256 * 32; ++i) {
    job.keys[i] *= 1e20f;
    job.values[i] *= 1e20f;
  }
  assert_int_equal(balance_run(&job), KVSIFT_OK);
  assert_true(job.stats.saturated > 0);
  assert_int_equal(job.count, 64);
  for (uint32_t i = 0; i < job.count; ++i) assert_true(isfinite(job.weight[i]));
  balance_job_free(&job);
}

/* Pairs of equal tokens: a walk with a large gamma must give each pair both signs, so each pair keeps exactly one. */
static void splits_equal_pairs(void **state) {
  (void)state;
  balance_job job;
  balance_job_init(&job, KVSIFT_BALANCE_PRACTICAL, 64, 16, 5);
  memset(job.keys, 0, 64 * 16 * sizeof(float));
  memset(job.values, 0, 64 * 16 * sizeof(float));
  /* Pair i / 2 has its own direction of values: pairs do not meet in the kernel but for the offset. */
  for (uint32_t i = 0; i < 32; ++i) job.values[i * 16 + i / 2] = 100.0f;
  job.config.group_tokens = 32;
  job.config.halvings = 1;
  job.config.value_offset = 0.0f;
  job.range.end = 32;
  job.config.gamma = 1.0f;
  assert_int_equal(balance_run(&job), KVSIFT_OK);
  assert_int_equal(job.count, 16);
  for (uint32_t i = 0; i < 16; ++i) {
    assert_int_equal(job.index[i] / 2, i);
    assert_true(job.weight[i] == 2.0f || i == 15);
  }
  balance_job_free(&job);
}

/* The theorem's c makes failure improbable: none in practice; a c far too small must be noticed. */
static void counts_failures(void **state) {
  (void)state;
  uint64_t last = 0;
  static const float gammas[] = {0.0f, 2.0f, 8.0f};
  for (size_t i = 0; i < 3; ++i) {
    balance_job job;
    balance_job_init(&job, KVSIFT_BALANCE_THEORY, 2048, 16, 6);
    job.config.group_tokens = 0;
    job.config.gamma = gammas[i];
    balance_resize(&job);
    assert_int_equal(balance_run(&job), KVSIFT_OK);
    if (i == 0) assert_int_equal(job.stats.failures, 0);
    if (i > 0) assert_true(job.stats.failures > last);
    last = job.stats.failures;
    assert_true(job.count <= 512);
    balance_job_free(&job);
  }
}

/* A token that points away from all others must come through with weight 1, and its neighbours with it. */
static void guards_needles(void **state) {
  (void)state;
  balance_job job;
  balance_job_init(&job, KVSIFT_BALANCE_PRACTICAL, 1024, 16, 7);
  for (uint32_t i = 0; i < 1024; ++i) job.keys[i * 16] += i == 700 ? -20.0f : 5.0f;
  job.config.guard = 1;
  job.config.guard_margin = 3;
  balance_resize(&job);
  assert_int_equal(balance_run(&job), KVSIFT_OK);
  assert_int_equal(job.stats.guarded, 7);
  uint32_t seen = 0;
  for (uint32_t i = 0; i < job.count; ++i) {
    if (job.index[i] < 697 || job.index[i] > 703) continue;
    ++seen;
    assert_true(job.weight[i] == 1.0f);
  }
  assert_int_equal(seen, 7);
  assert_int_equal(job.count, 7 + (1024 - 7) / 4);
  assert_true(fabsf(balance_weight_sum(&job) - 1024.0f) < 0.05f);
  balance_job_free(&job);
}

/* With all tokens at weight 1 the estimator is attention; with a doubled token it is attention over a list with it twice. */
static void estimates_weighted_attention(void **state) {
  (void)state;
  balance_job job;
  balance_job_init(&job, KVSIFT_BALANCE_PRACTICAL, 40, 8, 8);
  uint32_t index[40];
  float weight[40], out[8], query[8];
  double wanted[8] = {0}, sum = 0.0;
  for (uint32_t c = 0; c < 8; ++c) query[c] = 0.3f * (float)c - 1.0f;
  for (uint32_t i = 0; i < 40; ++i) {
    index[i] = i;
    weight[i] = i == 11 ? 2.0f : i == 12 ? 0.0f : 1.0f;
    double dot = 0.0;
    for (uint32_t c = 0; c < 8; ++c) dot += (double)query[c] * (double)job.keys[i * 8 + c];
    const double p = exp(dot / sqrt(8.0)) * (double)weight[i];
    sum += p;
    for (uint32_t c = 0; c < 8; ++c) wanted[c] += p * (double)job.values[i * 8 + c];
  }
  const kvsift_weighted set = {index, weight, 40, 0};
  assert_int_equal(kvsift_balance_attend(8, 0.0f, query, &job.cache, 0, &set, NULL, out, &job.error), KVSIFT_OK);
  for (uint32_t c = 0; c < 8; ++c) assert_true(fabs((double)out[c] - wanted[c] / sum) < 1e-5);

  /* The published estimator: weights in the numerator, a constant in the denominator. */
  float twos[40];
  for (uint32_t i = 0; i < 40; ++i) twos[i] = 2.0f;
  const kvsift_weighted doubled = {index, twos, 40, 0};
  float halved[8];
  assert_int_equal(kvsift_balance_attend(8, 0.0f, query, &job.cache, 0, &set, &doubled, halved, NULL), KVSIFT_OK);
  double all = 0.0;
  for (uint32_t i = 0; i < 40; ++i) {
    double dot = 0.0;
    for (uint32_t c = 0; c < 8; ++c) dot += (double)query[c] * (double)job.keys[i * 8 + c];
    all += 2.0 * exp(dot / sqrt(8.0));
  }
  for (uint32_t c = 0; c < 8; ++c) assert_true(fabs((double)halved[c] - wanted[c] / all) < 1e-5);

  static const float scales[] = {NAN, INFINITY, -INFINITY};
  for (uint32_t i = 0; i < 3; ++i) {
    assert_int_equal(kvsift_balance_attend(8, scales[i], query, &job.cache, 0, &set, NULL, out, &job.error), KVSIFT_NOT_FINITE);
    assert_non_null(strstr(job.error.message, "scale is"));
  }
  for (uint32_t i = 0; i < 2; ++i) {
    float *row = (i == 0 ? job.keys : job.values) + index[0] * 8, good = row[5];
    row[5] = NAN;
    assert_int_equal(kvsift_balance_attend(8, 0.0f, query, &job.cache, 0, &set, NULL, out, &job.error), KVSIFT_NOT_FINITE);
    assert_non_null(strstr(job.error.message, "out["));
    row[5] = good;
  }
  index[3] = 40;
  assert_int_equal(kvsift_balance_attend(8, 0.0f, query, &job.cache, 0, &set, NULL, out, &job.error),
                   KVSIFT_INVALID_ARGUMENT);
  assert_non_null(strstr(job.error.message, "index[3] is 40"));
  balance_job_free(&job);
}

/* Mean softmax shares of the last queries, each over the tokens it sees. */
static void measures_importance(void **state) {
  (void)state;
  enum { TOKENS = 50, DIM = 8, ROWS = 5, HEADS = 2 };
  balance_job job;
  balance_job_init(&job, KVSIFT_BALANCE_GRADED, TOKENS, DIM, 11);
  float queries[ROWS * HEADS * DIM], row[TOKENS], importance[TOKENS];
  double wanted[TOKENS] = {0};
  balance_fill(queries, ROWS * HEADS * DIM, 12, 0.0f);
  for (uint32_t q = 0; q < ROWS * HEADS; ++q) {
    const uint32_t sees = TOKENS - ROWS + q / HEADS + 1;
    double p[TOKENS], sum = 0.0;
    for (uint32_t i = 0; i < sees; ++i) {
      double dot = 0.0;
      for (uint32_t c = 0; c < DIM; ++c) dot += (double)queries[q * DIM + c] * (double)job.keys[i * DIM + c];
      sum += p[i] = exp(dot / sqrt((double)DIM));
    }
    for (uint32_t i = 0; i < sees; ++i) wanted[i] += p[i] / sum / (ROWS * HEADS);
  }
  kvsift_query query = {sizeof query, TOKENS, balance_view(queries, DIM), 0, 0, ROWS, 0};
  query.view.head_stride = DIM * sizeof(float);
  query.view.token_stride = HEADS * DIM * sizeof(float);
  assert_int_equal(kvsift_balance_importance(DIM, 0.0f, &query, HEADS, &job.cache, row, importance, &job.error),
                   KVSIFT_OK);
  for (uint32_t i = 0; i < TOKENS; ++i) assert_true(fabs((double)importance[i] - wanted[i]) < 1e-6);
  assert_int_equal(kvsift_balance_importance(DIM, NAN, &query, HEADS, &job.cache, row, importance, &job.error),
                   KVSIFT_NOT_FINITE);
  assert_non_null(strstr(job.error.message, "scale is"));
  job.keys[0] = 3e38f;
  assert_int_equal(kvsift_balance_importance(DIM, 1e3f, &query, HEADS, &job.cache, row, importance, &job.error),
                   KVSIFT_NOT_FINITE);
  assert_non_null(strstr(job.error.message, "importance["));
  query.rows = 0;
  assert_int_equal(kvsift_balance_importance(DIM, 0.0f, &query, HEADS, &job.cache, row, importance, &job.error),
                   KVSIFT_INVALID_ARGUMENT);
  assert_non_null(strstr(job.error.message, "rows"));
  balance_job_free(&job);
}

/* The most important tokens come through as they are, whatever the walk says; count and weights are as for any form. */
static void grades_by_importance(void **state) {
  (void)state;
  balance_job job;
  balance_job_init(&job, KVSIFT_BALANCE_GRADED, 1000, 16, 13);
  expect_refusal(&job, KVSIFT_INVALID_ARGUMENT, "importance is null");
  float importance[1000];
  for (uint32_t i = 0; i < 1000; ++i) importance[i] = i % 50 == 7 ? 0.04f : i % 2 == 0 ? 1e-4f : 1e-6f;
  job.config.importance = importance;
  importance[500] = -1.0f;
  expect_refusal(&job, KVSIFT_NOT_FINITE, "importance[500]");
  importance[500] = 1e-4f;
  for (uint32_t halvings = 1; halvings <= 4; ++halvings) {
    job.config.halvings = halvings;
    assert_int_equal(balance_run(&job), KVSIFT_OK);
    const uint32_t most = 1000u >> halvings;
    assert_true(job.count <= most && job.count > most / 2);
    assert_true(fabsf(balance_weight_sum(&job) - 1000.0f) < 0.05f);
    uint32_t exact = 0, even = 0, odd = 0;
    for (uint32_t i = 0; i < job.count; ++i) {
      if (job.index[i] % 50 == 7) exact += job.weight[i] == 1.0f;
      else if (job.index[i] % 2 == 0) ++even;
      else ++odd;
    }
    assert_int_equal(exact, 20);
    assert_true(halvings == 1 || even > 2 * odd);
  }
  for (uint32_t i = 0; i < 1000; ++i) importance[i] = 0.0f;
  assert_int_equal(balance_run(&job), KVSIFT_OK);
  assert_true(job.count > 0 && job.count <= 62);
  balance_job_free(&job);
}

/* Grades with too few tokens to keep one: what they stand for is not lost. */
static void small_grades_count(void **state) {
  (void)state;
  for (uint32_t tokens = 4; tokens <= 256; tokens += tokens / 3) {
    balance_job job;
    balance_job_init(&job, KVSIFT_BALANCE_GRADED, tokens, 16, tokens);
    float importance[256];
    for (uint32_t i = 0; i < tokens; ++i) importance[i] = i < tokens / 4 ? 0.06f : i % 3 == 0 ? 1e-3f : 1e-6f;
    job.config.importance = importance;
    job.config.halvings = 2;
    assert_int_equal(balance_run(&job), KVSIFT_OK);
    assert_true(job.count > 0 && job.count <= tokens / 4);
    assert_true(fabsf(balance_weight_sum(&job) - (float)tokens) < 0.01f);
    balance_job_free(&job);
  }
}

/* Copies of a stream that would lie in its own arena; a copy begins without a sentence. */
static void refuses_overlaps(kvsift_balance_stream *stream, char *arena) {
  uint64_t bytes = 0, arena_bytes = 0;
  kvsift_balance_stream *copy = stream;
  kvsift_balance_stream_config c = stream_config(KVSIFT_BALANCE_PRACTICAL, 16, 64, 10000, NULL);
  assert_int_equal(kvsift_balance_stream_arena_size(&c, &arena_bytes), KVSIFT_OK);
  assert_int_equal(kvsift_balance_stream_fork(stream, arena + 64, arena_bytes, &copy), KVSIFT_INVALID_ARGUMENT);
  assert_non_null(strstr(kvsift_balance_stream_last_error(stream), "arena overlaps"));
  assert_null(copy);
  assert_int_equal(kvsift_balance_stream_snapshot_size(stream, &bytes), KVSIFT_OK);
  assert_int_equal(kvsift_balance_stream_snapshot_save(stream, arena, bytes, NULL), KVSIFT_INVALID_ARGUMENT);
  assert_non_null(strstr(kvsift_balance_stream_last_error(stream), "buffer overlaps"));
  assert_int_equal(kvsift_balance_stream_snapshot_load(stream, NULL, bytes), KVSIFT_INVALID_ARGUMENT);
  assert_non_null(strstr(kvsift_balance_stream_last_error(stream), "buffer is null"));
  void *room = aligned_alloc(KVSIFT_ARENA_ALIGNMENT, arena_bytes);
  assert_int_equal(kvsift_balance_stream_fork(stream, room, arena_bytes, &copy), KVSIFT_OK);
  assert_string_equal(kvsift_balance_stream_last_error(copy), "");
  free(room);
}

static void refuses_bad_streams(void **state) {
  (void)state;
  kvsift_error error = {0};
  kvsift_balance_stream_config c = stream_config(KVSIFT_BALANCE_PRACTICAL, 16, 64, 10000, &error);
  uint64_t bytes = 0;
  assert_int_equal(kvsift_balance_stream_arena_size(&c, &bytes), KVSIFT_OK);
#define REFUSED(field, value, expected)                                             \
  do {                                                                              \
    kvsift_balance_stream_config bad = c;                                           \
    bad.field = value;                                                              \
    assert_int_equal(kvsift_balance_stream_arena_size(&bad, &bytes), expected);     \
    assert_non_null(strstr(error.message, #field));                                 \
  } while (0)
  REFUSED(batch_tokens, 33, KVSIFT_INVALID_ARGUMENT);
  REFUSED(batch_tokens, 8192, KVSIFT_INVALID_ARGUMENT);
  REFUSED(max_tokens, 0, KVSIFT_INVALID_ARGUMENT);
  REFUSED(levels, 25, KVSIFT_INVALID_ARGUMENT);
  REFUSED(rollback_batches, 9, KVSIFT_INVALID_ARGUMENT);
  REFUSED(row_type, KVSIFT_I8, KVSIFT_INVALID_ARGUMENT);
  REFUSED(balance.form, KVSIFT_BALANCE_CUBLAS, KVSIFT_UNSUPPORTED);
#undef REFUSED
  void *arena = aligned_alloc(KVSIFT_ARENA_ALIGNMENT, bytes);
  kvsift_balance_stream *stream = NULL;
  assert_int_equal(kvsift_balance_stream_create(&c, arena, bytes - 1, &stream), KVSIFT_ARENA_TOO_SMALL);
  assert_null(stream);
  assert_int_equal(kvsift_balance_stream_create(&c, (char *)arena + 8, bytes, &stream), KVSIFT_MISALIGNED);
  assert_int_equal(kvsift_balance_stream_create(&c, arena, bytes, &stream), KVSIFT_OK);
  balance_job job;
  balance_job_init(&job, KVSIFT_BALANCE_PRACTICAL, 100, 16, 9);
  job.values[42 * 16] = NAN;
  assert_int_equal(kvsift_balance_stream_push(stream, &job.cache.keys, &job.cache.values, 0, 100), KVSIFT_NOT_FINITE);
  assert_non_null(strstr(kvsift_balance_stream_last_error(stream), "value of token 42"));
  uint32_t tokens = 1;
  kvsift_balance_stream_count(stream, &tokens, NULL, NULL);
  assert_int_equal(tokens, 0);
  job.values[42 * 16] = 0.0f;
  for (uint32_t i = 0; i < 100; ++i) {
    assert_int_equal(kvsift_balance_stream_push(stream, &job.cache.keys, &job.cache.values, 0, 100), KVSIFT_OK);
  }
  assert_int_equal(kvsift_balance_stream_push(stream, &job.cache.keys, &job.cache.values, 0, 1), KVSIFT_CAPACITY);
  assert_non_null(strstr(kvsift_balance_stream_last_error(stream), "tokens is 1, the stream is at 10000 of max_tokens 10000"));
  assert_int_equal(kvsift_balance_stream_truncate(stream, 10001), KVSIFT_INVALID_ARGUMENT);
  refuses_overlaps(stream, arena);
  assert_int_equal(kvsift_balance_stream_truncate(stream, 0), KVSIFT_ROLLBACK);
  balance_job_free(&job);
  free(arena);
}

/* The needle stays whatever follows it, in a list that never grows beyond its room; what is crowded out is halved. */
static void streams_guard_needles(void **state) {
  (void)state;
  enum { TOKENS = 20000, DIM = 16, ROOM = 40 };
  balance_job job;
  balance_job_init(&job, KVSIFT_BALANCE_PRACTICAL, TOKENS, DIM, 12);
  for (uint32_t i = 0; i < TOKENS; ++i) job.keys[i * DIM] += i == 700 ? -20.0f : i > 5000 && i % 100 == 0 ? -6.0f : 5.0f;
  kvsift_error error = {0};
  kvsift_balance_stream_config c = stream_config(KVSIFT_BALANCE_PRACTICAL, DIM, 128, TOKENS, &error);
  c.balance.guard = 1;
  c.balance.guard_margin = 1;
  c.guard_tokens = ROOM;
  void *arena = NULL;
  kvsift_balance_stream *stream = stream_new(&c, &arena);
  kvsift_balance_stats stats = {.struct_size = sizeof stats};
  for (uint32_t at = 0; at < TOKENS; at += 1000) {
    kvsift_view keys = job.cache.keys, values = job.cache.values;
    keys.data = job.keys + at * DIM;
    values.data = job.values + at * DIM;
    assert_int_equal(kvsift_balance_stream_push(stream, &keys, &values, 0, 1000), KVSIFT_OK);
    assert_int_equal(kvsift_balance_stream_stats(stream, &stats), KVSIFT_OK);
    assert_true(stats.guarded <= ROOM);
    if (at < 5000) assert_int_equal(stats.guarded, 3);
  }
  assert_int_equal(stats.guarded, ROOM);
  kvsift_balance_stream_view view = {.struct_size = sizeof view};
  assert_int_equal(kvsift_balance_stream_read(stream, &view), KVSIFT_OK);
  uint32_t needle = 0;
  double sum = 0.0;
  for (uint32_t i = 0; i < view.numerator.count; ++i) {
    sum += (double)view.numerator.weight[i];
    if (view.tokens[view.numerator.index[i]] == 700) needle += view.numerator.weight[i] == 1.0f;
  }
  assert_int_equal(needle, 1);
  assert_true(fabs(sum / TOKENS - 1.0) < 1e-4);
  free(arena);
  c = stream_config(KVSIFT_BALANCE_THEORY, DIM, 128, TOKENS, &error);
  c.balance.guard = 1;
  uint64_t bytes = 0;
  assert_int_equal(kvsift_balance_stream_arena_size(&c, &bytes), KVSIFT_UNSUPPORTED);
  assert_non_null(strstr(error.message, "guard"));
  balance_job_free(&job);
}

static void refuses_damaged_snapshots(void **state) {
  (void)state;
  kvsift_error error = {0};
  kvsift_balance_stream_config c = stream_config(KVSIFT_BALANCE_PRACTICAL, 16, 32, 1000, &error);
  c.balance.guard = 1;
  void *arena = NULL;
  kvsift_balance_stream *stream = stream_new(&c, &arena);
  balance_job job;
  balance_job_init(&job, KVSIFT_BALANCE_PRACTICAL, 300, 16, 10);
  assert_int_equal(kvsift_balance_stream_push(stream, &job.cache.keys, &job.cache.values, 0, 300), KVSIFT_OK);
  uint64_t bytes = 0, written = 0;
  assert_int_equal(kvsift_balance_stream_snapshot_size(stream, &bytes), KVSIFT_OK);
  uint8_t *saved = malloc(bytes);
  assert_int_equal(kvsift_balance_stream_snapshot_save(stream, saved, bytes - 1, &written), KVSIFT_ARENA_TOO_SMALL);
  assert_int_equal(kvsift_balance_stream_snapshot_save(stream, saved, bytes, &written), KVSIFT_OK);
  assert_int_equal(written, bytes);
  const uint64_t before = stream_digest(stream);
  for (uint64_t at = 0; at < bytes; at += 97) {
    saved[at] ^= 0x10;
    assert_int_not_equal(kvsift_balance_stream_snapshot_load(stream, saved, bytes), KVSIFT_OK);
    saved[at] ^= 0x10;
  }
  for (uint64_t cut = 0; cut < bytes; cut += 1009) {
    assert_int_equal(kvsift_balance_stream_snapshot_load(stream, saved, cut), KVSIFT_CORRUPT);
  }
  assert_true(stream_digest(stream) == before);
  c.balance.seed += 1;
  void *other_arena = NULL;
  kvsift_balance_stream *other = stream_new(&c, &other_arena);
  assert_int_equal(kvsift_balance_stream_snapshot_load(other, saved, bytes), KVSIFT_CONFIG_MISMATCH);
  balance_job_free(&job);
  free(saved);
  free(arena);
  free(other_arena);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(refuses_bad_configs),      cmocka_unit_test(refuses_bad_input),
      cmocka_unit_test(keeps_the_count_of_short_inputs), cmocka_unit_test(survives_zero_vectors),
      cmocka_unit_test(saturates_long_keys),      cmocka_unit_test(splits_equal_pairs),
      cmocka_unit_test(counts_failures),          cmocka_unit_test(guards_needles),
      cmocka_unit_test(estimates_weighted_attention), cmocka_unit_test(measures_importance),
      cmocka_unit_test(grades_by_importance),
      cmocka_unit_test(small_grades_count),
      cmocka_unit_test(refuses_bad_streams),
      cmocka_unit_test(streams_guard_needles),
      cmocka_unit_test(refuses_damaged_snapshots)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
