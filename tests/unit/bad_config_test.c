/* Configurations and life-cycle calls that must be refused: the right status, a sentence that names argument and value. */
#include "guarded.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "cases.h"

static kvsift_policy_config good(kvsift_method method) {
  kvsift_policy_config c = {.struct_size = sizeof c};
  must(NULL, kvsift_policy_config_init(&c, method));
  c.layers = 3;
  c.query_heads = 4;
  c.kv_heads = 2;
  c.head_dim = 16;
  c.max_tokens = 4096;
  return c;
}

typedef struct number {
  kvsift_method method;
  const char *name;  /* of the field, and how the sentence calls it */
  size_t offset;
  uint32_t value;
  kvsift_status status;
} number;

#define BAD(method, field, value) \
  {KVSIFT_METHOD_##method, #field, offsetof(kvsift_policy_config, field), value, KVSIFT_INVALID_ARGUMENT}

static const number numbers[] = {
    BAD(QUEST, method, KVSIFT_METHOD_COUNT),
    BAD(QUEST, method, UINT32_MAX),
    BAD(QUEST, layers, 0),
    BAD(QUEST, layers, KVSIFT_MAX_LAYERS + 1),
    BAD(QUEST, query_heads, 0),
    BAD(QUEST, query_heads, 3),
    BAD(QUEST, query_heads, 2 * (KVSIFT_MAX_GROUP + 1)),
    BAD(QUEST, kv_heads, 0),
    BAD(QUEST, kv_heads, 8),
    BAD(QUEST, kv_heads, UINT32_MAX),
    BAD(QUEST, head_dim, 0),
    BAD(QUEST, head_dim, KVSIFT_MAX_HEAD_DIM + 1),
    BAD(QUEST, max_tokens, 0),
    BAD(QUEST, max_tokens, KVSIFT_MAX_TOKENS + 1),
    BAD(QUEST, block_tokens, 0),
    BAD(QUEST, block_tokens, 257),
    BAD(QUEST, block_tokens, 8),
    BAD(PAGE_STATS, page_tokens, 0),
    BAD(PAGE_STATS, page_tokens, 257),
    BAD(PAGE_STATS, page_tokens, 32),
    BAD(H2O, verify_blocks, 2),
    BAD(STREAMING, verify_blocks, 1),
    BAD(EMA, budget_tokens, 0),
    BAD(EMA, budget_tokens, 127),
    BAD(EMA, budget_tokens, KVSIFT_MAX_TOKENS + 1),
    BAD(EMA, sink_tokens, 1000),
    BAD(EMA, sink_tokens, UINT32_MAX),
    BAD(EMA, local_tokens, 1000),
    BAD(EMA, local_tokens, UINT32_MAX),
    BAD(EMA, dense_layers, KVSIFT_MAX_LAYERS + 1),
    BAD(EMA, grouping, 3),
    BAD(EMA, tail, 3),
    BAD(EMA, moments_type, KVSIFT_F32),
    BAD(EMA, moments_type, KVSIFT_BF16),
    BAD(EMA, moments_type, 77),
    BAD(EMA, rollback_tokens, 4097),
    BAD(EMA, verify_blocks, 4097),
    BAD(EMA, calibration_dense, 2),
    BAD(EMA, tensor_attention, 2),
    BAD(STREAMING, sink_tokens, 516),
    BAD(SNAPKV, window, 0),
    BAD(SNAPKV, window, 2049),
    BAD(SNAPKV, pool_kernel, 0),
    BAD(SNAPKV, pool_kernel, 4),
    BAD(SNAPKV, pool_kernel, 257),
    BAD(SNAPKV, pooling, 2),
    BAD(PYRAMIDKV, pyramid_beta, 0),
    BAD(PYRAMIDKV, window, 0),
    BAD(EMA, balance_form, 6),
    BAD(BALANCE, balance_guard, 2),
    BAD(BALANCE, balance_halvings, 7),
    BAD(BALANCE, balance_group, 31),
    BAD(ATTENTION_PREDICTOR, history_rows, 4),
    BAD(ATTENTION_PREDICTOR, history_rows, 257),
    BAD(ATTENTION_PREDICTOR, history_type, KVSIFT_BF16),
    BAD(ATTENTION_PREDICTOR, predict_period, 0),
    BAD(ATTENTION_PREDICTOR, predictor_plain, 2),
    BAD(ATTENTION_PREDICTOR, predictor_arithmetic, 4),
};

#undef BAD

/* The sentence must have the field's name and the value. */
static void check_refusal(kvsift_policy_config *c, kvsift_status status, const char *name, const char *value) {
  static uint8_t memory[1 << 16] __attribute__((aligned(64)));
  kvsift_error error = {0};
  kvsift_policy *policy = (kvsift_policy *)memory;
  uint64_t bytes = 99;
  c->error = &error;
  cases_name("%s = %s", name, value);
  const kvsift_status given = kvsift_policy_arena_size(c, &bytes, NULL);
  expect(given == status, "arena_size answered %d, not %d: %s", given, status, error.message);
  expect(bytes == 99, "bytes was written");
  expect(error.status == status, "the error has status %d", error.status);
  expect(strstr(error.message, name) != NULL, "no name in: %s", error.message);
  expect(strstr(error.message, value) != NULL, "no value in: %s", error.message);
  error = (kvsift_error){0};
  expect(kvsift_policy_create(c, memory, sizeof memory, &policy) == status, "create answered otherwise");
  expect(policy == NULL, "the handle is not null");
  expect(error.message[0] != '\0', "create left no sentence");
  c->error = NULL;
  expect(kvsift_policy_arena_size(c, &bytes, NULL) == status, "without an error to write to");
}

static void test_numbers(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; ++i) {
    const number *n = &numbers[i];
    kvsift_policy_config c = good(n->method);
    char value[16];
    memcpy((char *)&c + n->offset, &n->value, sizeof n->value);
    snprintf(value, sizeof value, "%u", n->value);
    check_refusal(&c, n->status, n->name, value);
  }
}

typedef struct real {
  kvsift_method method;
  const char *name;
  size_t offset;
  float most;  /* the greatest that is allowed; the least is 0 */
} real;

#define REAL(method, field, most) {KVSIFT_METHOD_##method, #field, offsetof(kvsift_policy_config, field), most}

static void test_reals(void **state) {
  (void)state;
  static const real reals[] = {
      REAL(QUEST, budget_share, 1), REAL(QUEST, target_mass, 1), REAL(QUEST, softmax_scale, 1e6f),
      REAL(H2O, recent_share, 1),   REAL(EMA, ema_decay, 1),     REAL(ATTENTION_PREDICTOR, history_floor, 1),
      REAL(STREAMING, recent_share, 1),   REAL(BALANCE, balance_gamma, 1e6f),
      REAL(BALANCE, balance_temperature, 1e6f), REAL(BALANCE, balance_value_offset, 1e6f),
  };
  for (size_t i = 0; i < sizeof reals / sizeof reals[0]; ++i) {
    const real *r = &reals[i];
    const struct {
      float value;
      kvsift_status status;
      const char *text;
    } tries[] = {{NAN, KVSIFT_NOT_FINITE, "nan"},
                 {INFINITY, KVSIFT_NOT_FINITE, "infinity"},
                 {-INFINITY, KVSIFT_NOT_FINITE, "-infinity"},
                 {-0.5f, KVSIFT_INVALID_ARGUMENT, "-0.5"},
                 {r->most * 2, KVSIFT_INVALID_ARGUMENT, "2"}};
    for (size_t t = 0; t < sizeof tries / sizeof tries[0]; ++t) {
      kvsift_policy_config c = good(r->method);
      memcpy((char *)&c + r->offset, &tries[t].value, sizeof(float));
      check_refusal(&c, tries[t].status, r->name, tries[t].text);
    }
  }
}

static void test_struct_sizes(void **state) {
  (void)state;
  kvsift_policy_config c = good(KVSIFT_METHOD_QUEST);
  uint64_t bytes;
  void *arena = guarded_new(64);
  kvsift_policy *policy = NULL;
  for (uint32_t size = 0; size < sizeof c; size += size < 8 ? 1 : 50) {
    cases_name("struct_size %u", size);
    c.struct_size = size;
    expect(kvsift_policy_config_init(&c, KVSIFT_METHOD_EMA) == KVSIFT_INVALID_STRUCT_SIZE, "config_init");
    expect(kvsift_policy_config_snapkv(&c, 0) == KVSIFT_INVALID_STRUCT_SIZE, "config_snapkv");
    expect(kvsift_policy_config_predictor_fast(&c) == KVSIFT_INVALID_STRUCT_SIZE, "config_predictor_fast");
    expect(kvsift_policy_arena_size(&c, &bytes, NULL) == KVSIFT_INVALID_STRUCT_SIZE, "arena_size");
    expect(kvsift_policy_create(&c, arena, 64, &policy) == KVSIFT_INVALID_STRUCT_SIZE, "create");
  }
  kvsift_build_info info = {.struct_size = 1};
  expect(kvsift_get_build_info(&info) == KVSIFT_INVALID_STRUCT_SIZE, "get_build_info");
  guarded_free(arena, 64);
}

static void test_nulls(void **state) {
  (void)state;
  kvsift_policy_config c = good(KVSIFT_METHOD_QUEST);
  kvsift_error error = {0};
  kvsift_policy *policy = NULL;
  kvsift_method method = 77;
  uint64_t bytes;
  uint8_t *arena = guarded_new(1024);
  const kvsift_status bad = KVSIFT_INVALID_ARGUMENT;
  c.error = &error;
  expect(kvsift_policy_config_init(NULL, 0) == bad, "config_init of null");
  expect(kvsift_policy_config_init(&c, KVSIFT_METHOD_COUNT) == bad, "config_init of an unknown method");
  expect(kvsift_policy_config_snapkv(NULL, 0) == bad, "config_snapkv of null");
  expect(kvsift_policy_config_snapkv(&c, 4) == bad && strstr(error.message, "profile is 4"), "%s", error.message);
  expect(kvsift_policy_config_predictor_fast(NULL) == bad, "config_predictor_fast of null");
  expect(kvsift_policy_arena_size(NULL, &bytes, NULL) == bad, "arena_size of null");
  expect(kvsift_policy_arena_size(&c, NULL, NULL) == bad && strstr(error.message, "bytes is null"), "%s", error.message);
  expect(kvsift_policy_create(NULL, arena, 1024, &policy) == bad, "create of null");
  expect(kvsift_policy_create(&c, NULL, 1024, &policy) == bad && strstr(error.message, "arena is null"), "%s", error.message);
  expect(kvsift_policy_create(&c, arena, 1024, NULL) == bad && strstr(error.message, "policy is null"), "%s", error.message);
  expect(kvsift_method_from_name(NULL, &method) == bad && kvsift_method_from_name("quest", NULL) == bad, "null names");
  expect(kvsift_method_from_name("questing", &method) == bad && method == 77, "an unknown name");
  expect(kvsift_get_build_info(NULL) == bad, "get_build_info of null");
  expect(kvsift_method_name(KVSIFT_METHOD_COUNT) == NULL, "a name for no method");
  expect(strcmp(kvsift_last_error(NULL), "") == 0, "a sentence without a policy");
  for (uint32_t off = 1; off < 64; off += 7) {
    expect(kvsift_policy_create(&c, arena + 64 + off, 512, &policy) == KVSIFT_MISALIGNED, "arena off by %u", off);
    expect(strstr(error.message, "arena") != NULL && policy == NULL, "%s", error.message);
  }
  guarded_free(arena, 1024);
}

static void test_names(void **state) {
  (void)state;
  for (kvsift_method m = 0; m < KVSIFT_METHOD_COUNT; ++m) {
    kvsift_method back = 99;
    expect(kvsift_method_name(m) != NULL, "method %u has no name", m);
    expect(kvsift_method_from_name(kvsift_method_name(m), &back) == KVSIFT_OK && back == m, "%s", kvsift_method_name(m));
  }
  static const kvsift_status all[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 20, 21, 22, 40, 60, 61};
  for (size_t i = 0; i < sizeof all / sizeof all[0]; ++i) {
    expect(strcmp(kvsift_status_string(all[i]), kvsift_status_string(-5)) != 0, "status %d has no text", all[i]);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_numbers), cmocka_unit_test(test_reals), cmocka_unit_test(test_struct_sizes),
      cmocka_unit_test(test_nulls),   cmocka_unit_test(test_names),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
