/* Arenas: the exact size is enough, one byte less is not, nothing is written beyond, and sizes stay what they are. */
#include "guarded.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "cases.h"
#include "session.h"
#include "shapes.h"

static kvsift_policy_config geometry(kvsift_method method, uint32_t tail, uint32_t layers, uint32_t query_heads,
                                     uint32_t kv_heads, uint32_t dim, uint32_t tokens) {
  kvsift_policy_config c = {.struct_size = sizeof c};
  must(NULL, kvsift_policy_config_init(&c, method));
  c.layers = layers;
  c.query_heads = query_heads;
  c.kv_heads = kv_heads;
  c.head_dim = dim;
  c.max_tokens = tokens;
  c.tail = tail;
  return c;
}

/* Arena bytes of the methods' defaults at the geometries that documents speak of: Llama-3.1-8B with 8192 tokens, and a
 * tiny model with 256. A change here is a change of what engines must set aside: say so in the change log. */
typedef struct reference {
  kvsift_method method;
  uint32_t tail;
  uint64_t llama, tiny;
} reference;

static const reference references[] = {
    {KVSIFT_METHOD_FULL, KVSIFT_TAIL_NONE, 363456, 4224},
    {KVSIFT_METHOD_STREAMING, KVSIFT_TAIL_NONE, 213440, 5248},
    {KVSIFT_METHOD_STREAMING, KVSIFT_TAIL_MOMENTS, 52511168, 22144},
    {KVSIFT_METHOD_H2O, KVSIFT_TAIL_NONE, 36360640, 42752},
    {KVSIFT_METHOD_H2O, KVSIFT_TAIL_MOMENTS, 88658368, 59648},
    {KVSIFT_METHOD_SNAPKV, KVSIFT_TAIL_NONE, 45961152, 59648},
    {KVSIFT_METHOD_SNAPKV, KVSIFT_TAIL_MOMENTS, 98258880, 76544},
    {KVSIFT_METHOD_PYRAMIDKV, KVSIFT_TAIL_NONE, 54874048, 59648},
    {KVSIFT_METHOD_PYRAMIDKV, KVSIFT_TAIL_MOMENTS, 107171776, 76544},
    {KVSIFT_METHOD_QUEST, KVSIFT_TAIL_NONE, 63261120, 13440},
    {KVSIFT_METHOD_QUEST, KVSIFT_TAIL_MOMENTS, 112290240, 21888},
    {KVSIFT_METHOD_PAGE_STATS, KVSIFT_TAIL_NONE, 33032640, 10880},
    {KVSIFT_METHOD_PAGE_STATS, KVSIFT_TAIL_MOMENTS, 49252800, 13184},
    {KVSIFT_METHOD_EMA, KVSIFT_TAIL_NONE, 2189760, 5248},
    {KVSIFT_METHOD_EMA, KVSIFT_TAIL_MOMENTS, 51218880, 13696},
    {KVSIFT_METHOD_UNIFORM, KVSIFT_TAIL_NONE, 7950272, 43264},
    {KVSIFT_METHOD_UNIFORM, KVSIFT_TAIL_MOMENTS, 60248000, 60160},
    {KVSIFT_METHOD_ATTENTION_PREDICTOR, KVSIFT_TAIL_NONE, 256013760, 73600},
    {KVSIFT_METHOD_ATTENTION_PREDICTOR, KVSIFT_TAIL_MOMENTS, 305042880, 82048},
    {KVSIFT_METHOD_BALANCE, KVSIFT_TAIL_BALANCE, 80971712, 823424},
    {KVSIFT_METHOD_PAGE_STATS, KVSIFT_TAIL_BALANCE, 57637312, 186752},
};

static uint64_t size_of(const kvsift_policy_config *c) {
  kvsift_policy_config config = *c;
  kvsift_error error = {0};
  uint64_t bytes = 0, alignment = 0;
  config.error = &error;
  expect(kvsift_policy_arena_size(&config, &bytes, &alignment) == KVSIFT_OK, "%s", error.message);
  expect(alignment == KVSIFT_ARENA_ALIGNMENT, "alignment %llu", (unsigned long long)alignment);
  return bytes;
}

static void test_reference_sizes(void **state) {
  (void)state;
  uint32_t wrong = 0;
  for (uint32_t i = 0; i < sizeof references / sizeof references[0]; ++i) {
    const reference *r = &references[i];
    const kvsift_policy_config llama = geometry(r->method, r->tail, 32, 32, 8, 128, 8192);
    const kvsift_policy_config tiny = geometry(r->method, r->tail, 4, 4, 2, 32, 256);
    if (size_of(&llama) == r->llama && size_of(&tiny) == r->tiny) continue;
    ++wrong;
    print_error("%s, tail %u: %llu and %llu bytes\n", kvsift_method_name(r->method), r->tail,
                (unsigned long long)size_of(&llama), (unsigned long long)size_of(&tiny));
  }
  expect(wrong == 0, "%u reference sizes changed", wrong);
}

/* Bytes after the arena's end that must stay as they are. */
enum { BEYOND = 192 };

static void check_shortage(kvsift_policy_config *c, uint8_t *arena, uint64_t bytes) {
  kvsift_error error = {0};
  kvsift_policy *policy = (kvsift_policy *)arena;
  c->error = &error;
  expect(kvsift_policy_create(c, arena, bytes - 1, &policy) == KVSIFT_ARENA_TOO_SMALL, "one byte less: %s", error.message);
  expect(policy == NULL, "the handle is not null after a failure");
  expect(error.status == KVSIFT_ARENA_TOO_SMALL, "status %d in the error", error.status);
  const char *name = strchr(error.message, '"');
  expect(name != NULL && strchr(name + 1, '"') > name + 1, "no buffer is named: %s", error.message);
  /* Each buffer in turn is the one that does not fit. */
  for (uint64_t less = 64; less <= bytes; less += 64 + less / 2) {
    expect(kvsift_policy_create(c, arena, bytes - less, &policy) == KVSIFT_ARENA_TOO_SMALL, "%llu bytes less",
           (unsigned long long)less);
  }
  c->error = NULL;
}

static void test_exact_size(void **state) {
  (void)state;
  for (kvsift_method m = 0; m < KVSIFT_METHOD_COUNT; ++m) {
    if (!shape_supported(m)) continue;
    for (cases k = cases_begin(20); cases_next(&k);) {
      test_random r = {k.seed * 64 + m};
      kvsift_policy_config c = shape_config(&r, m);
      const uint64_t bytes = size_of(&c);
      cases_name("%s, %llu bytes", kvsift_method_name(m), (unsigned long long)bytes);
      uint8_t *arena = guarded_new(bytes);
      check_shortage(&c, arena, bytes);
      kvsift_policy *policy = NULL;
      expect(kvsift_policy_create(&c, arena, bytes, &policy) == KVSIFT_OK, "the same memory with the exact size");
      kvsift_policy_info info = {.struct_size = sizeof info};
      must(policy, kvsift_policy_get_info(policy, &info));
      expect(info.arena_bytes == bytes, "info has %llu bytes", (unsigned long long)info.arena_bytes);
      guarded_free(arena, bytes);
    }
  }
}

/* A larger arena is used as far as it was asked for. */
static void test_nothing_beyond(void **state) {
  (void)state;
  for (kvsift_method m = 0; m < KVSIFT_METHOD_COUNT; ++m) {
    if (!shape_supported(m)) continue;
    test_random r = {m + 1};
    kvsift_policy_config c = shape_config(&r, m);
    toy *t = toy_new(3, &c, (toy_form){KVSIFT_F32, 0, false, false, 0});
    session *s = session_new(&c, t);
    const uint64_t bytes = s->arena_bytes;
    uint8_t *arena = guarded_new(bytes + BEYOND);
    memset(arena, 0xc3, bytes + BEYOND);
    cases_name("%s", kvsift_method_name(m));
    expect(kvsift_policy_create(&c, arena, bytes + BEYOND, &s->policy) == KVSIFT_OK, "create");
    session_prompt(s, c.max_tokens / 2);
    session_steps(s, 8);
    for (uint32_t i = 0; i < BEYOND; ++i) expect(arena[bytes + i] == 0xc3, "byte %u beyond the arena was written", i);
    session_free(s);
    guarded_free(arena, bytes + BEYOND);
    toy_free(t);
  }
}

/* Shapes whose sizes overflow are refused in words. */
static void test_overflow(void **state) {
  (void)state;
  kvsift_policy_config c = geometry(KVSIFT_METHOD_H2O, KVSIFT_TAIL_MOMENTS, KVSIFT_MAX_LAYERS, 65536, 4096, 256,
                                    KVSIFT_MAX_TOKENS);
  kvsift_error error = {0};
  uint64_t bytes = 7;
  c.rollback_tokens = 4096;
  c.grouping = KVSIFT_GROUP_QUERY_HEAD;
  c.error = &error;
  expect(kvsift_policy_arena_size(&c, &bytes, NULL) == KVSIFT_INVALID_ARGUMENT, "%llu bytes", (unsigned long long)bytes);
  expect(bytes == 7, "bytes were written on failure");
  expect(strlen(error.message) > 0, "no sentence");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_reference_sizes),
      cmocka_unit_test(test_exact_size),
      cmocka_unit_test(test_nothing_beyond),
      cmocka_unit_test(test_overflow),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
