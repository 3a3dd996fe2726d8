/* Wrong arguments of the calls around a step: feedback, prompts, truncation, forks, snapshots, figures, dead handles. */
#include "guarded.h"

#include <setjmp.h>
#include <stdarg.h>
#include <math.h>
#include <string.h>

#include <cmocka.h>

#include "cases.h"
#include "mistakes.h"
#include "view_mistakes.h"

static const toy_form plain = {KVSIFT_F32, 0, false, false, 0};
static const toy_form paged = {KVSIFT_F32, 16, false, false, 0};

static kvsift_policy_config config_of(kvsift_method method) {
  kvsift_policy_config c = {.struct_size = sizeof c};
  must(NULL, kvsift_policy_config_init(&c, method));
  c.dense_tokens = KVSIFT_DENSE_OFF;
  c.layers = 3;
  c.dense_layers = 1;
  c.query_heads = 4;
  c.kv_heads = 2;
  c.head_dim = 16;
  c.max_tokens = 200;
  c.block_tokens = 4;
  c.budget_tokens = 40;
  c.sink_tokens = 4;
  c.local_tokens = 8;
  c.tail = KVSIFT_TAIL_MOMENTS;
  c.rollback_tokens = 2;
  c.calibration_period = 0;
  return c;
}

#define COUNT(list) (sizeof(list) / sizeof(list)[0])

static kvsift_status feed(mistake_room *m, const kvsift_observation *o) {
  return kvsift_observe_attention(m->p, m->layer, NULL, o);
}

/* One field of the observation is wrong. */
static void check_observation_fields(mistake_room *m) {
  kvsift_observation o[9];
  for (size_t i = 0; i < COUNT(o); ++i) o[i] = m->observation;
  o[0].struct_size = 7;
  o[1].tokens = 0;
  o[2].tokens = 201;
  o[3].tokens = UINT32_MAX;
  o[4].tokens = 64;
  o[5].log_sum_exp = NULL;
  o[6].block_stride = 16;
  o[7].block_mass = NULL;
  o[8].rows = m->out;
  o[8].row_stride = 64;
  static const struct {
    kvsift_status status;
    const char *words;
  } answers[] = {{KVSIFT_INVALID_STRUCT_SIZE, "observation->struct_size is 7"},
                 {KVSIFT_INVALID_ARGUMENT, "observation->tokens is 0"},
                 {KVSIFT_CAPACITY, "observation->tokens is 201|200"},
                 {KVSIFT_CAPACITY, "observation->tokens is 4294967295"},
                 {KVSIFT_OUT_OF_ORDER, "observation->tokens is 64"},
                 {KVSIFT_INVALID_ARGUMENT, "log_sum_exp"},
                 {KVSIFT_INVALID_ARGUMENT, "block_stride is 16|at least 17"},
                 {KVSIFT_INVALID_ARGUMENT, "block_mass is null"},
                 {KVSIFT_INVALID_ARGUMENT, "row_stride is 64"}};
  for (size_t i = 0; i < COUNT(o); ++i) {
    cases_name("observe_attention, mistake %zu", i);
    mistakes_check(m, feed(m, &o[i]), answers[i].status, answers[i].words);
  }
  cases_name("observe_attention, null and layer");
  mistakes_check(m, feed(m, NULL), KVSIFT_INVALID_ARGUMENT, "observation is null");
  mistakes_check(m, kvsift_observe_attention(m->p, 3, NULL, &m->observation), KVSIFT_INVALID_ARGUMENT, "layer is 3");
  const kvsift_query heads = {.struct_size = sizeof heads, .first_kv_head = 1, .kv_heads = 2};
  mistakes_check(m, kvsift_observe_attention(m->p, m->layer, &heads, &m->observation), KVSIFT_INVALID_ARGUMENT, "kv_heads 2");
}

static void check_number(mistake_room *m, float *at, float wrong, const char *words) {
  const float right = *at;
  *at = wrong;
  cases_name("observe_attention, %s is %g", words, (double)wrong);
  mistakes_check(m, feed(m, &m->observation), KVSIFT_NOT_FINITE, words);
  *at = right;
}

static void check_observation_numbers(mistake_room *m) {
  static const float bad[] = {NAN, INFINITY, -INFINITY};
  kvsift_observation *o = &m->observation;
  const uint32_t blocks = (m->tokens + 3) / 4;
  for (uint32_t q = 0; q < 4; ++q) {
    for (uint32_t i = 0; i < 3; ++i) check_number(m, &o->log_sum_exp[q], bad[i], "observation->log_sum_exp");
    for (uint32_t b = 0; b < blocks; b += 5) {
      float *max = &o->block_max[q * o->block_stride + b], *mass = &o->block_mass[q * o->block_stride + b];
      check_number(m, max, NAN, "observation->block_max");
      check_number(m, max, INFINITY, "observation->block_max");
      check_number(m, max, o->log_sum_exp[q] + 5, "observation->block_max");
      check_number(m, mass, NAN, "observation->block_mass");
      check_number(m, mass, -0.5f, "observation->block_mass");
      check_number(m, mass, 3, "observation->block_mass");
    }
  }
}

static void check_rows(mistake_room *m) {
  static const float bad[] = {NAN, INFINITY, -INFINITY, -0.25f, 1.5f};
  kvsift_observation o = {.struct_size = sizeof o, .tokens = m->tokens, .rows = m->out, .row_stride = m->tokens};
  memset(m->out, 0, 4 * m->tokens * sizeof *m->out);
  for (uint32_t i = 0; i < 4 * m->tokens; i += 9) {
    m->out[i] = bad[i % COUNT(bad)];
    cases_name("observe_attention, row element %u is %g", i, (double)m->out[i]);
    mistakes_check(m, feed(m, &o), KVSIFT_NOT_FINITE, "observation->rows");
    m->out[i] = 0;
  }
}

static void test_feedback(void **state) {
  (void)state;
  const kvsift_policy_config c = config_of(KVSIFT_METHOD_H2O);
  mistake_room m;
  mistakes_begin(&m, &c, plain, ATTENDED);
  check_observation_fields(&m);
  check_observation_numbers(&m);
  check_rows(&m);
  mistakes_end(&m);
}

static kvsift_status prompt(mistake_room *m, const kvsift_query *q, const kvsift_cache *cache) {
  return kvsift_prefill_attend(m->p, m->layer, q, cache, m->out);
}

static void check_prompt_fields(mistake_room *m) {
  const kvsift_query good = session_query(m->s, m->layer, m->s->tokens + 8, 8);
  const kvsift_cache cache = toy_cache(m->toy, m->layer, m->s->tokens + 8);
  static const struct {
    uint32_t tokens, rows;
    kvsift_status status;
    const char *words;
  } tries[] = {{64, 8, KVSIFT_OUT_OF_ORDER, "query->tokens is 64"},
               {0, 1, KVSIFT_INVALID_ARGUMENT, "query->rows is 1|query->tokens 0"},
               {201, 8, KVSIFT_CAPACITY, "query->tokens is 201|max_tokens is 200"},
               {72, 9, KVSIFT_OUT_OF_ORDER, "query->rows is 9"},
               {72, 73, KVSIFT_INVALID_ARGUMENT, "query->rows is 73"},
               {73, 8, KVSIFT_INVALID_ARGUMENT, "cache->tokens is 72"}};
  for (size_t i = 0; i < COUNT(tries); ++i) {
    kvsift_query q = good;
    q.tokens = tries[i].tokens;
    q.rows = tries[i].rows;
    /* Rows are read from the first on: as many as may be asked for. */
    q.view = toy_view(m->toy, TOY_QUERY, m->layer, 0);
    cases_name("prefill_attend, %u tokens, %u rows", q.tokens, q.rows);
    mistakes_check(m, prompt(m, &q, &cache), tries[i].status, tries[i].words);
  }
  cases_name("prefill_attend, nulls and layer");
  mistakes_check(m, prompt(m, NULL, &cache), KVSIFT_INVALID_ARGUMENT, "query is null");
  mistakes_check(m, prompt(m, &good, NULL), KVSIFT_INVALID_ARGUMENT, "cache is null");
  mistakes_check(m, kvsift_prefill_attend(m->p, m->layer, &good, &cache, NULL), KVSIFT_INVALID_ARGUMENT, "out is null");
  mistakes_check(m, kvsift_prefill_attend(m->p, m->layer, &good, &cache, (float *)m->s->arena), KVSIFT_INVALID_ARGUMENT,
                 "out lies");
  mistakes_check(m, kvsift_prefill_attend(m->p, 99, &good, &cache, m->out), KVSIFT_INVALID_ARGUMENT, "layer is 99");
  int32_t table[64];
  kvsift_cache holes = cache;
  memcpy(table, cache.block_table, 13 * sizeof *table);
  table[2] = -7;
  holes.block_table = table;
  mistakes_check(m, prompt(m, &good, &holes), KVSIFT_INVALID_ARGUMENT, "cache->block_table|is -7");
}

/* One element of a query, key or value of the chunk is not finite, or far too large. */
static void check_prompt_numbers(mistake_room *m) {
  static const float bad[] = {NAN, INFINITY, -INFINITY};
  const uint32_t tokens = m->s->tokens + 8;
  const kvsift_query good = session_query(m->s, m->layer, tokens, 8);
  const kvsift_cache cache = toy_cache(m->toy, m->layer, tokens);
  const uint32_t page = (uint32_t)cache.block_table[(tokens - 1) / 16];
  float *spots[3];
  spots[0] = (float *)good.view.data + 5 * 64 + 17;
  spots[1] = (float *)cache.keys.data + page * (cache.keys.page_stride / 4) + (tokens - 1) % 16 * 32 + 3;
  spots[2] = (float *)cache.values.data + page * (cache.values.page_stride / 4) + (tokens - 1) % 16 * 32 + 20;
  static const char *const words[] = {"query->view", "cache->keys", "cache->values"};
  for (uint32_t i = 0; i < 3; ++i) {
    const float right = *spots[i];
    for (uint32_t b = 0; b < 3; ++b) {
      *spots[i] = bad[b];
      cases_name("prefill_attend, an element of %s is %g", words[i], (double)bad[b]);
      mistakes_check(m, prompt(m, &good, &cache), KVSIFT_NOT_FINITE, words[i]);
      *spots[i] = right;
    }
  }
  const float key = *spots[1], query = *((float *)good.view.data + 7 * 64 + 3);
  *spots[1] = 3e38f;
  *((float *)good.view.data + 7 * 64 + 3) = 3e38f;
  cases_name("prefill_attend, a logit overflows");
  mistakes_check(m, prompt(m, &good, &cache), KVSIFT_NOT_FINITE, "not finite");
  *spots[1] = key;
  *((float *)good.view.data + 7 * 64 + 3) = query;
}

static void test_prompt(void **state) {
  (void)state;
  const kvsift_policy_config c = config_of(KVSIFT_METHOD_H2O);
  mistake_room m;
  mistakes_begin(&m, &c, paged, BEFORE_STEP);
  check_prompt_fields(&m);
  check_prompt_numbers(&m);
  mistakes_end(&m);
}

/* Rows that were learned from once are refused. */
static void test_prompt_twice(void **state) {
  (void)state;
  const kvsift_policy_config c = config_of(KVSIFT_METHOD_EMA);
  mistake_room m;
  mistakes_begin(&m, &c, plain, BEFORE_STEP);
  kvsift_query q = session_query(m.s, m.layer, m.tokens, 1);
  must(m.p, prompt(&m, &q, &m.cache));
  expect(prompt(&m, &q, &m.cache) == KVSIFT_OUT_OF_ORDER, "the same prompt twice");
  expect(strstr(kvsift_last_error(m.p), "query->rows is 1") != NULL, "%s", kvsift_last_error(m.p));
  mistakes_end(&m);
}

static void check_going_back(mistake_room *m) {
  static const struct {
    uint32_t tokens;
    kvsift_status status;
    const char *words;
  } tries[] = {{65, KVSIFT_INVALID_ARGUMENT, "tokens is 65|64 tokens"},
               {UINT32_MAX, KVSIFT_INVALID_ARGUMENT, "tokens is 4294967295"},
               {61, KVSIFT_ROLLBACK, "tokens is 61|rollback_tokens is 2"},
               {59, KVSIFT_ROLLBACK, "tokens is 59|prompt of 60"},
               {0, KVSIFT_ROLLBACK, "tokens is 0"}};
  must(m->p, kvsift_advance(m->p, 0)); /* nothing, not the end of a prompt */
  for (size_t i = 0; i < COUNT(tries); ++i) {
    cases_name("truncate to %u", tries[i].tokens);
    mistakes_check(m, kvsift_truncate(m->p, tries[i].tokens), tries[i].status, tries[i].words);
  }
  cases_name("advance");
  mistakes_check(m, kvsift_advance(m->p, 137), KVSIFT_CAPACITY, "tokens is 137|max_tokens 200");
  mistakes_check(m, kvsift_advance(m->p, UINT32_MAX), KVSIFT_CAPACITY, "tokens is 4294967295");
  mistakes_check(m, kvsift_advance(m->p, 1), KVSIFT_OUT_OF_ORDER, "tokens|65|64");
  cases_name("predict_next");
  mistakes_check(m, kvsift_predict_next(m->p, m->layer, NULL), KVSIFT_UNSUPPORTED, "h2o");
}

static void check_forks(mistake_room *m) {
  kvsift_policy *copy = m->p;
  const uint64_t bytes = m->s->arena_bytes;
  uint8_t *arena = guarded_new(bytes + 64), *own = m->s->arena;
  cases_name("fork");
  mistakes_check(m, kvsift_fork(m->p, arena, bytes, NULL), KVSIFT_INVALID_ARGUMENT, "copy is null");
  mistakes_check(m, kvsift_fork(m->p, NULL, bytes, &copy), KVSIFT_INVALID_ARGUMENT, "arena is null");
  expect(copy == NULL, "the copy is not null after a failure");
  mistakes_check(m, kvsift_fork(m->p, arena + 8, bytes, &copy), KVSIFT_MISALIGNED, "arena|64");
  mistakes_check(m, kvsift_fork(m->p, arena, bytes - 1, &copy), KVSIFT_ARENA_TOO_SMALL, "arena of");
  mistakes_check(m, kvsift_fork(m->p, arena, 0, &copy), KVSIFT_ARENA_TOO_SMALL, "arena of 0");
  mistakes_check(m, kvsift_fork(m->p, own, bytes, &copy), KVSIFT_INVALID_ARGUMENT, "arena overlaps");
  mistakes_check(m, kvsift_fork(m->p, own + 64, bytes, &copy), KVSIFT_INVALID_ARGUMENT, "arena overlaps");
  mistakes_check(m, kvsift_fork(m->p, own - 64, bytes, &copy), KVSIFT_INVALID_ARGUMENT, "arena overlaps");
  guarded_free(arena, bytes + 64);
}

static void check_saving(mistake_room *m) {
  uint64_t bytes = 0, written = 77;
  must(m->p, kvsift_snapshot_size(m->p, &bytes));
  uint8_t *buffer = guarded_new(bytes), *own = m->s->arena;
  cases_name("snapshots");
  mistakes_check(m, kvsift_snapshot_size(m->p, NULL), KVSIFT_INVALID_ARGUMENT, "bytes is null");
  mistakes_check(m, kvsift_snapshot_save(m->p, NULL, bytes, &written), KVSIFT_INVALID_ARGUMENT, "buffer is null");
  mistakes_check(m, kvsift_snapshot_save(m->p, buffer, bytes - 1, &written), KVSIFT_ARENA_TOO_SMALL, "buffer of");
  mistakes_check(m, kvsift_snapshot_save(m->p, own + 128, bytes, &written), KVSIFT_INVALID_ARGUMENT, "buffer overlaps");
  expect(written == 77, "a failed save wrote its size");
  mistakes_check(m, kvsift_snapshot_load(m->p, NULL, bytes), KVSIFT_INVALID_ARGUMENT, "buffer is null");
  mistakes_check(m, kvsift_snapshot_load(m->p, own, bytes), KVSIFT_INVALID_ARGUMENT, "buffer overlaps");
  cases_name("figures");
  kvsift_stats stats = {.struct_size = 5};
  kvsift_policy_info info = {.struct_size = 6};
  mistakes_check(m, kvsift_get_stats(m->p, NULL), KVSIFT_INVALID_ARGUMENT, "stats is null");
  mistakes_check(m, kvsift_get_stats(m->p, &stats), KVSIFT_INVALID_STRUCT_SIZE, "stats->struct_size is 5");
  mistakes_check(m, kvsift_policy_get_info(m->p, NULL), KVSIFT_INVALID_ARGUMENT, "info is null");
  mistakes_check(m, kvsift_policy_get_info(m->p, &info), KVSIFT_INVALID_STRUCT_SIZE, "info->struct_size is 6");
  guarded_free(buffer, bytes);
}

static void test_state(void **state) {
  (void)state;
  const kvsift_policy_config c = config_of(KVSIFT_METHOD_H2O);
  mistake_room m;
  mistakes_begin(&m, &c, plain, BEFORE_STEP);
  check_going_back(&m);
  check_forks(&m);
  check_saving(&m);
  mistakes_end(&m);
}

static void test_merge(void **state) {
  (void)state;
  float a[4] = {1, 2, 3, 4}, b[4] = {5, 6, 7, 8}, la = 0;
  const kvsift_status bad = KVSIFT_INVALID_ARGUMENT;
  expect(kvsift_merge_attention(4, NULL, &la, b, 0) == bad && kvsift_merge_attention(4, a, NULL, b, 0) == bad &&
             kvsift_merge_attention(4, a, &la, NULL, 0) == bad, "nulls");
  expect(kvsift_merge_attention(0, a, &la, b, 0) == bad && kvsift_merge_attention(257, a, &la, b, 0) == bad, "head_dim");
  expect(kvsift_merge_attention(4, a, &la, b, NAN) == KVSIFT_NOT_FINITE, "NaN");
  expect(kvsift_merge_attention(4, a, &la, b, INFINITY) == KVSIFT_NOT_FINITE, "infinity");
  expect(a[0] == 1 && a[3] == 4 && la == 0, "a failed merge changed its result");
}

/* A destroyed policy and memory that never was one answer every call alike. */
static void check_dead(mistake_room *m, kvsift_policy *p) {
  kvsift_policy *copy = NULL;
  uint64_t bytes = 0;
  kvsift_stats stats = {.struct_size = sizeof stats};
  kvsift_policy_info info = {.struct_size = sizeof info};
  uint8_t buffer[64] = {0};
  const kvsift_status answers[] = {
      kvsift_policy_reset(p),
      kvsift_policy_destroy(p),
      kvsift_policy_get_info(p, &info),
      kvsift_observe_keys(p, m->layer, NULL, m->s->tokens, 1, &m->keys, &m->values),
      kvsift_select_blocks(p, m->layer, &m->query, &m->selection),
      kvsift_attend(p, m->layer, &m->query, &m->cache, &m->selection, m->out, NULL),
      kvsift_decode_attend(p, m->layer, &m->query, &m->cache, &m->selection, m->out),
      kvsift_attend_tail(p, m->layer, &m->query, &m->cache, &m->selection, m->out, m->log_sum_exp),
      kvsift_observe_attention(p, m->layer, NULL, &m->observation),
      kvsift_advance(p, 1),
      kvsift_predict_next(p, m->layer, NULL),
      kvsift_prefill_attend(p, m->layer, &m->query, &m->cache, m->out),
      kvsift_truncate(p, 0),
      kvsift_fork(p, m->s->arena, m->s->arena_bytes, &copy),
      kvsift_snapshot_size(p, &bytes),
      kvsift_snapshot_save(p, buffer, sizeof buffer, &bytes),
      kvsift_snapshot_load(p, buffer, sizeof buffer),
      kvsift_get_stats(p, &stats),
  };
  for (size_t i = 0; i < COUNT(answers); ++i) expect(answers[i] == KVSIFT_INVALID_ARGUMENT, "call %zu: %d", i, answers[i]);
  expect(strcmp(kvsift_last_error(p), "") == 0, "a sentence");
}

static void test_dead_handles(void **state) {
  (void)state;
  static uint8_t memory[1 << 14] __attribute__((aligned(64)));
  const kvsift_policy_config c = config_of(KVSIFT_METHOD_H2O);
  mistake_room m;
  mistakes_begin(&m, &c, plain, ATTENDED);
  cases_name("null");
  check_dead(&m, NULL);
  cases_name("memory that is no policy");
  check_dead(&m, (kvsift_policy *)memory);
  cases_name("a misaligned handle");
  check_dead(&m, (kvsift_policy *)(memory + 8));
  session *dead = session_fork(m.s);
  must(dead->policy, kvsift_policy_destroy(dead->policy));
  cases_name("a destroyed policy");
  check_dead(&m, dead->policy);
  expect(kvsift_policy_create(&c, dead->arena, dead->arena_bytes, &dead->policy) == KVSIFT_OK, "create in its memory");
  session_free(dead);
  mistakes_end(&m);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_feedback), cmocka_unit_test(test_prompt), cmocka_unit_test(test_prompt_twice),
      cmocka_unit_test(test_state),    cmocka_unit_test(test_merge),  cmocka_unit_test(test_dead_handles),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
