/* BalanceKV: what must hold for any input. */
#ifndef _DEFAULT_SOURCE
#define _DEFAULT_SOURCE
#endif
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

enum { ROUNDS = 40 };

static uint64_t job_digest(const balance_job *job) {
  const uint64_t hash = digest_bytes(job->index, job->count * sizeof(uint32_t), 0xcbf29ce484222325u);
  return digest_bytes(job->weight, job->count * sizeof(float), hash);
}

static void random_job(balance_job *job, test_random *r, uint32_t form) {
  static const uint32_t groups[] = {32, 100, 256, 512, 0};
  balance_job_init(job, form, 64 + random_below(r, 900), 1 + random_below(r, 130), random_bits(r));
  job->config.halvings = 1 + random_below(r, 6);
  job->config.group_tokens = groups[random_below(r, 5)];
  job->config.gamma = form == KVSIFT_BALANCE_THEORY ? 0.0f : 4.0f * random_unit(r);
  job->config.temperature = random_unit(r);
  job->config.seed = random_bits(r);
  balance_resize(job);
}

static void count_and_weights_are_exact(void **state) {
  (void)state;
  test_random r = {1};
  for (uint32_t round = 0; round < ROUNDS; ++round) {
    balance_job job;
    const uint32_t form = round % 5;
    random_job(&job, &r, form);
    const uint32_t tokens = job.cache.tokens, wanted = tokens >> job.config.halvings;
    assert_int_equal(balance_run(&job), KVSIFT_OK);
    if (form == KVSIFT_BALANCE_THEORY) assert_true(job.count >= 1 && job.count <= wanted);
    else assert_int_equal(job.count, wanted);
    assert_true(fabsf(balance_weight_sum(&job) / (float)tokens - 1.0f) < 1e-4f);
    for (uint32_t i = 1; i < job.count; ++i) assert_true(job.index[i] > job.index[i - 1]);
    assert_true(job.index[job.count - 1] < tokens);

    job.config.weights = KVSIFT_BALANCE_PUBLISHED;
    assert_int_equal(balance_run(&job), KVSIFT_OK);
    for (uint32_t i = 0; i < job.count; ++i) {
      const float w = job.weight[i];
      assert_true(w >= 1.0f && w <= (float)(1u << job.config.halvings) && exp2f(floorf(log2f(w))) == w);
    }
    balance_job_free(&job);
  }
}

static void levels_give_the_same_bits(void **state) {
  (void)state;
  static const char *const levels[] = {"scalar", "avx2", "avx512", "neon"};
  test_random r = {2};
  for (uint32_t round = 0; round < ROUNDS; ++round) {
    balance_job job;
    random_job(&job, &r, round % 5);
    job.config.guard = round % 3 == 0;
    balance_resize(&job);
    uint64_t first = 0;
    for (size_t l = 0; l < sizeof levels / sizeof *levels; ++l) {
      setenv("KVSIFT_CPU", levels[l], 1);
      assert_int_equal(balance_run(&job), KVSIFT_OK);
      if (l == 0) first = job_digest(&job);
      assert_true(job_digest(&job) == first);
    }
    unsetenv("KVSIFT_CPU");
    balance_job_free(&job);
  }
}

static uint16_t half_bits(float x) {
  /* Exact for the multiples of 1/64 in [-1, 1) that are asked for. */
  if (x == 0.0f) return 0;
  int exponent;
  const float fraction = frexpf(fabsf(x), &exponent);
  return (uint16_t)((x < 0.0f ? 0x8000u : 0u) | (uint32_t)(exponent + 14) << 10 |
                    ((uint32_t)(fraction * 2048.0f) & 1023u));
}

/* The same numbers in every type, and behind a block table, give the same choice. */
static void storage_does_not_matter(void **state) {
  (void)state;
  enum { TOKENS = 333, DIM = 40, PAGE = 16, PAGES = (TOKENS + PAGE - 1) / PAGE };
  balance_job job;
  balance_job_init(&job, KVSIFT_BALANCE_PRACTICAL, TOKENS, DIM, 3);
  float *rows[2] = {job.keys, job.values};
  kvsift_view *views[2] = {&job.cache.keys, &job.cache.values};
  for (int s = 0; s < 2; ++s)
    for (uint32_t i = 0; i < TOKENS * DIM; ++i) rows[s][i] = floorf(rows[s][i] * 32.0f) / 64.0f;
  assert_int_equal(balance_run(&job), KVSIFT_OK);
  const uint64_t wanted = job_digest(&job);

  uint16_t *half = malloc(4 * TOKENS * DIM), *bfloat = malloc(4 * TOKENS * DIM);
  int8_t *byte = malloc(2 * TOKENS * DIM);
  float *paged = malloc(sizeof(float) * 2 * PAGES * PAGE * DIM), scale = 1.0f / 64.0f;
  int32_t table[PAGES];
  for (int32_t p = 0; p < PAGES; ++p) table[p] = (p * 5 + 3) % PAGES;
  for (uint32_t s = 0; s < 2; ++s) {
    for (uint32_t i = 0; i < TOKENS * DIM; ++i) {
      uint32_t bits;
      memcpy(&bits, &rows[s][i], sizeof bits);
      half[s * TOKENS * DIM + i] = half_bits(rows[s][i]);
      bfloat[s * TOKENS * DIM + i] = (uint16_t)(bits >> 16);
      byte[s * TOKENS * DIM + i] = (int8_t)(rows[s][i] * 64.0f);
      const uint32_t token = i / DIM, page = (uint32_t)table[token / PAGE];
      paged[((s * PAGES + page) * PAGE + token % PAGE) * DIM + i % DIM] = rows[s][i];
    }
  }
  for (uint32_t type = KVSIFT_F16; type <= KVSIFT_I8; ++type) {
    for (uint32_t s = 0; s < 2; ++s) {
      const uint64_t at = (uint64_t)s * TOKENS * DIM;
      views[s]->type = type;
      views[s]->token_stride = DIM * (type == KVSIFT_I8 ? 1u : 2u);
      views[s]->data = type == KVSIFT_F16 ? (void *)(half + at) : type == KVSIFT_BF16 ? (void *)(bfloat + at) : byte + at;
      views[s]->scales = type == KVSIFT_I8 ? &scale : NULL;
    }
    assert_int_equal(balance_run(&job), KVSIFT_OK);
    assert_true(job_digest(&job) == wanted);
  }
  for (uint32_t s = 0; s < 2; ++s) {
    *views[s] = balance_view(paged + (uint64_t)s * PAGES * PAGE * DIM, DIM);
    views[s]->page_stride = PAGE * DIM * sizeof(float);
  }
  job.cache.block_table = table;
  job.cache.page_tokens = PAGE;
  assert_int_equal(balance_run(&job), KVSIFT_OK);
  assert_true(job_digest(&job) == wanted);
  free(half);
  free(bfloat);
  free(byte);
  free(paged);
  balance_job_free(&job);
}

static void push_range(kvsift_balance_stream *stream, const balance_job *job, uint32_t begin, uint32_t end) {
  kvsift_view keys = job->cache.keys, values = job->cache.values;
  keys.data = job->keys + (uint64_t)begin * job->config.head_dim;
  values.data = job->values + (uint64_t)begin * job->config.head_dim;
  assert_int_equal(kvsift_balance_stream_push(stream, &keys, &values, 0, end - begin), KVSIFT_OK);
}

static const uint32_t stream_forms[] = {KVSIFT_BALANCE_PRACTICAL, KVSIFT_BALANCE_THEORY, KVSIFT_BALANCE_UNIFORM,
                                        KVSIFT_BALANCE_RELATIVE};

static kvsift_balance_stream_config random_stream(test_random *r, uint32_t round, const balance_job *job) {
  kvsift_balance_stream_config c =
      stream_config(stream_forms[round % 4], job->config.head_dim, 32 + 2 * random_below(r, 50), job->cache.tokens, NULL);
  c.rollback_batches = random_below(r, 4);
  c.levels = stream_forms[round % 4] == KVSIFT_BALANCE_THEORY ? 0 : random_below(r, 4);
  c.row_type = random_below(r, 2);
  c.buckets = 1 + random_below(r, 4);
  c.balance.seed = random_bits(r);
  c.balance.guard = round % 4 != 1 && random_below(r, 2) == 0;
  c.balance.guard_margin = random_below(r, 4);
  c.guard_tokens = random_below(r, 60);
  return c;
}

/* Norms of values over many powers of two, so that buckets come and go. */
static void spread_norms(balance_job *job, test_random *r) {
  for (uint32_t i = 0; i < job->cache.tokens; ++i) {
    const float factor = exp2f((float)random_below(r, 9) - 4.0f + (float)i / 400.0f);
    for (uint32_t c = 0; c < job->config.head_dim; ++c) job->values[i * job->config.head_dim + c] *= factor;
  }
}

static void weights_of_streams_are_exact(kvsift_balance_stream *stream, uint32_t tokens, uint32_t form) {
  kvsift_balance_stream_view view = {0};
  view.struct_size = sizeof view;
  assert_int_equal(kvsift_balance_stream_read(stream, &view), KVSIFT_OK);
  double sum = 0.0;
  for (uint32_t i = 0; i < view.denominator.count; ++i) sum += (double)view.denominator.weight[i];
  assert_true(fabs(sum / (double)tokens - 1.0) < 1e-4);
  if (form != KVSIFT_BALANCE_THEORY) assert_ptr_equal(view.numerator.index, view.denominator.index);
}

/* One call or many, a fork, a snapshot, or tokens pushed in vain and taken back: the same stream. */
static void streams_do_not_depend_on_the_way(void **state) {
  (void)state;
  test_random r = {4};
  for (uint32_t round = 0; round < ROUNDS; ++round) {
    balance_job job;
    balance_job_init(&job, KVSIFT_BALANCE_PRACTICAL, 1200, 1 + random_below(&r, 40), round);
    spread_norms(&job, &r);
    const kvsift_balance_stream_config c = random_stream(&r, round, &job);
    void *arena[4];
    kvsift_balance_stream *whole = stream_new(&c, &arena[0]), *parts = stream_new(&c, &arena[1]), *fork = NULL;
    uint64_t bytes = 0, saved = 0;
    kvsift_balance_stream_arena_size(&c, &bytes);
    arena[2] = aligned_alloc(KVSIFT_ARENA_ALIGNMENT, bytes);
    kvsift_balance_stream *loaded = stream_new(&c, &arena[3]);
    const uint32_t tokens = 700 + random_below(&r, 400);
    push_range(whole, &job, 0, tokens);
    uint32_t max_rows = 0, rows = 0;
    for (uint32_t at = 0, next; at < tokens; at = next) {
      next = at + 1 + random_below(&r, 90);
      if (next > tokens) next = tokens;
      push_range(parts, &job, at, next);
      kvsift_balance_stream_count(parts, NULL, &rows, &max_rows);
      assert_true(rows < max_rows);
      if (random_below(&r, 3) == 0) {
        const uint32_t back = next - next % c.batch_tokens;
        const uint32_t reach = random_below(&r, c.rollback_batches + 1) * c.batch_tokens;
        const uint32_t to = (back > reach ? back - reach : 0) + random_below(&r, next % c.batch_tokens + 1);
        const uint64_t before = stream_digest(parts);
        const kvsift_status status = kvsift_balance_stream_truncate(parts, to);
        /* Boundaries behind an earlier truncation may be gone. */
        if (status == KVSIFT_OK) push_range(parts, &job, to, next);
        else assert_int_equal(status, KVSIFT_ROLLBACK);
        assert_true(stream_digest(parts) == before);
      }
    }
    const uint64_t wanted = stream_digest(whole);
    weights_of_streams_are_exact(whole, tokens, c.balance.form);
    assert_true(stream_digest(parts) == wanted);
    assert_int_equal(kvsift_balance_stream_fork(parts, arena[2], bytes, &fork), KVSIFT_OK);
    kvsift_balance_stream_snapshot_size(parts, &bytes);
    uint8_t *buffer = malloc(bytes);
    assert_int_equal(kvsift_balance_stream_snapshot_save(parts, buffer, bytes, &saved), KVSIFT_OK);
    push_range(loaded, &job, 0, 321);
    assert_int_equal(kvsift_balance_stream_snapshot_load(loaded, buffer, saved), KVSIFT_OK);
    assert_true(stream_digest(fork) == wanted && stream_digest(loaded) == wanted);
    push_range(whole, &job, tokens, 1200);
    push_range(fork, &job, tokens, 1200);
    push_range(loaded, &job, tokens, 1200);
    assert_true(stream_digest(parts) == wanted);
    assert_true(stream_digest(fork) == stream_digest(whole) && stream_digest(loaded) == stream_digest(whole));
    for (int i = 0; i < 4; ++i) free(arena[i]);
    free(buffer);
    balance_job_free(&job);
  }
}

/* Within reach truncation must work, on every length. */
static void streams_go_back(void **state) {
  (void)state;
  balance_job job;
  balance_job_init(&job, KVSIFT_BALANCE_PRACTICAL, 500, 8, 5);
  kvsift_balance_stream_config c = stream_config(KVSIFT_BALANCE_PRACTICAL, 8, 32, 500, NULL);
  c.rollback_batches = 2;
  for (uint32_t tokens = 1; tokens <= 500; tokens += 7) {
    for (uint32_t back = 0; back <= tokens && back < 100; back += 5) {
      void *arena[2];
      kvsift_balance_stream *stream = stream_new(&c, &arena[0]), *fresh = stream_new(&c, &arena[1]);
      push_range(stream, &job, 0, tokens);
      push_range(fresh, &job, 0, tokens - back);
      const uint32_t newest = (tokens - 1) / 32 * 32, oldest = newest > 64 ? newest - 64 : 0;
      const kvsift_status status = kvsift_balance_stream_truncate(stream, tokens - back);
      assert_int_equal(status, tokens - back >= oldest ? KVSIFT_OK : KVSIFT_ROLLBACK);
      if (status == KVSIFT_OK) assert_true(stream_digest(stream) == stream_digest(fresh));
      free(arena[0]);
      free(arena[1]);
    }
  }
  balance_job_free(&job);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(count_and_weights_are_exact), cmocka_unit_test(levels_give_the_same_bits),
      cmocka_unit_test(storage_does_not_matter), cmocka_unit_test(streams_do_not_depend_on_the_way),
      cmocka_unit_test(streams_go_back)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
