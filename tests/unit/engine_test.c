/* The engine of the examples: kvsift's attention against attention written plainly, and the same
 * bits however the work is cut up. */
#include "../support/tiny_model.h" /* before cmocka.h, which makes `fail` a macro */

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "engine.h"
#include "json.h"
#include "plain_attention.h"
#include "sift.h"

enum { TOKENS = 300, PROMPT = 260 };

typedef struct setting {
  uint32_t threads, batch;
  kvsift_type cache_type;
  const kvsift_policy_config *policy; /* null: plain attention */
} setting;

static void read_tokens(engine *e, uint32_t batch, failure *why) {
  uint32_t tokens[TOKENS];
  test_random random = {9};
  for (uint32_t i = 0; i < TOKENS; i++) tokens[i] = random_below(&random, TINY_PIECES);
  for (uint32_t at = 0; at < PROMPT;) {
    uint32_t count = PROMPT - at < batch ? PROMPT - at : batch;
    if (!engine_read(e, tokens + at, count, PROMPT - at - count, why)) fail_msg("%s", why->text);
    at += count;
  }
  for (uint32_t at = PROMPT; at < TOKENS; at++) {
    if (!engine_step(e, tokens[at], why)) fail_msg("%s", why->text);
  }
}

/* Logits after the last token. */
static void run(const char *path, setting s, float *logits) {
  model m;
  engine e;
  sift policy = {0};
  sift *list[] = {&policy};
  sift_set set = {list, 1, NULL};
  failure why = {""};
  if (!model_load(&m, path, &why)) fail_msg("%s", why.text);
  workers *pool = workers_start(s.threads, &why);
  assert_true(engine_create(&e, &m, pool, s.cache_type, TOKENS, &why));
  e.attention = plain_attention();
  if (s.policy != NULL) {
    kvsift_policy_config config = *s.policy;
    sift_set_geometry(&config, &m, TOKENS);
    if (!sift_create(&policy, &config, &why)) fail_msg("%s", why.text);
    e.attention = sift_attention(&set);
  }
  read_tokens(&e, s.batch, &why);
  memcpy(logits, e.logits, TINY_PIECES * sizeof *logits);
  sift_release(&policy);
  engine_release(&e);
  workers_stop(pool);
  model_release(&m);
}

static kvsift_policy_config policy_of(kvsift_method method, uint32_t budget) {
  kvsift_policy_config config = {.struct_size = sizeof config};
  assert_int_equal(kvsift_policy_config_init(&config, method), KVSIFT_OK);
  config.dense_tokens = KVSIFT_DENSE_OFF;
  if (budget > 0) config.budget_tokens = budget;
  config.dense_layers = 0;
  return config;
}

static float distance(const float *a, const float *b) {
  float most = 0;
  for (uint32_t i = 0; i < TINY_PIECES; i++) most = fmaxf(most, fabsf(a[i] - b[i]));
  return most;
}

static void full_attention_is_attention(void **state) {
  (void)state;
  static const uint32_t types[] = {GGML_F32, GGML_F16, GGML_BF16, GGML_Q8_0};
  kvsift_policy_config full = policy_of(KVSIFT_METHOD_FULL, 0);
  for (uint32_t i = 0; i < 4; i++) {
    char path[64];
    float plain[TINY_PIECES], ours[TINY_PIECES];
    tiny_model_write(path, types[i], (tiny_flaw){0});
    run(path, (setting){1, ENGINE_BATCH, KVSIFT_F32, NULL}, plain);
    run(path, (setting){1, ENGINE_BATCH, KVSIFT_F32, &full}, ours);
    assert_true(distance(plain, ours) < 2e-5f);
    assert_true(distance(plain, ours) >= 0 && fabsf(plain[0]) > 1e-3f);
    unlink(path);
  }
}

static void how_the_work_is_cut_does_not_matter(void **state) {
  (void)state;
  char path[64];
  float whole[TINY_PIECES], cut[TINY_PIECES];
  kvsift_policy_config config = policy_of(KVSIFT_METHOD_PAGE_STATS, 96);
  config.tail = KVSIFT_TAIL_MOMENTS;
  tiny_model_write(path, GGML_F16, (tiny_flaw){0});
  run(path, (setting){1, ENGINE_BATCH, KVSIFT_F16, NULL}, whole);
  run(path, (setting){3, 7, KVSIFT_F16, NULL}, cut);
  assert_memory_equal(whole, cut, sizeof whole);
  run(path, (setting){1, ENGINE_BATCH, KVSIFT_F16, &config}, whole);
  run(path, (setting){2, ENGINE_BATCH, KVSIFT_F16, &config}, cut);
  assert_memory_equal(whole, cut, sizeof whole);
  run(path, (setting){3, 50, KVSIFT_F16, &config}, cut);
  assert_memory_equal(whole, cut, sizeof whole);
  unlink(path);
}

static void a_budget_that_covers_all_is_full_attention(void **state) {
  (void)state;
  char path[64];
  float full[TINY_PIECES], covered[TINY_PIECES], sparse[TINY_PIECES];
  kvsift_policy_config all = policy_of(KVSIFT_METHOD_FULL, 0);
  kvsift_policy_config wide = policy_of(KVSIFT_METHOD_QUEST, TOKENS);
  kvsift_policy_config narrow = policy_of(KVSIFT_METHOD_QUEST, 64);
  tiny_model_write(path, GGML_F16, (tiny_flaw){0});
  run(path, (setting){1, ENGINE_BATCH, KVSIFT_F16, &all}, full);
  run(path, (setting){1, ENGINE_BATCH, KVSIFT_F16, &wide}, covered);
  run(path, (setting){1, ENGINE_BATCH, KVSIFT_F16, &narrow}, sparse);
  assert_memory_equal(full, covered, sizeof full);
  assert_true(distance(full, sparse) > 1e-6f);
  unlink(path);
}

static void every_cache_type_comes_close(void **state) {
  (void)state;
  static const kvsift_type types[] = {KVSIFT_F16, KVSIFT_BF16, KVSIFT_I8};
  static const float bounds[] = {2e-3f, 2e-2f, 5e-2f};
  char path[64];
  float exact[TINY_PIECES], close[TINY_PIECES];
  kvsift_policy_config full = policy_of(KVSIFT_METHOD_FULL, 0);
  tiny_model_write(path, GGML_F32, (tiny_flaw){0});
  run(path, (setting){1, ENGINE_BATCH, KVSIFT_F32, &full}, exact);
  for (uint32_t i = 0; i < 3; i++) {
    run(path, (setting){1, ENGINE_BATCH, types[i], &full}, close);
    assert_true(distance(exact, close) < bounds[i]);
    run(path, (setting){1, ENGINE_BATCH, types[i], NULL}, exact);
    assert_true(distance(exact, close) < 2e-5f);
    run(path, (setting){1, ENGINE_BATCH, KVSIFT_F32, &full}, exact);
  }
  unlink(path);
}

static void expect_refusal(tiny_flaw flaw, const char *words) {
  char path[64];
  model m;
  failure why = {""};
  tiny_model_write(path, GGML_F16, flaw);
  bool loaded = model_load(&m, path, &why);
  unlink(path);
  if (loaded || strstr(why.text, words) == NULL || strstr(why.text, path) == NULL) {
    fail_msg("\"%s\" is not in \"%s\"", words, why.text);
  }
}

static void wrong_models_are_refused(void **state) {
  (void)state;
  model m;
  failure why = {""};
  expect_refusal((tiny_flaw){.left_out = "blk.1.ffn_up.weight"},
                 "tensor blk.1.ffn_up.weight is missing");
  expect_refusal((tiny_flaw){.other_type = "blk.0.attn_q.weight"},
                 "cannot read type Q4_K (12) of tensor blk.0.attn_q.weight");
  expect_refusal((tiny_flaw){.transposed = "blk.0.ffn_down.weight"},
                 "tensor blk.0.ffn_down.weight is 32 x 64; expected 64 x 32");
  assert_false(model_load(&m, "no/such/file.gguf", &why));
  assert_non_null(strstr(why.text, "no/such/file.gguf: No such file"));
}

static void expect_written(const char *text, const char *written) {
  char got[64] = "";
  FILE *to = fmemopen(got, sizeof got, "w");
  assert_non_null(to);
  json j = {.to = to};
  json_text(&j, NULL, text);
  fclose(to);
  assert_string_equal(got, written);
}

static void json_holds_utf8_alone(void **state) {
  (void)state;
  expect_written("a\xc3\xa9\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xf0\x90\x80\x80\xf4\x8f\xbf\xbf",
                 "\"a\xc3\xa9\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xf0\x90\x80\x80\xf4\x8f\xbf\xbf\"");
  static const char *const wrong[] = {"\x80",         "\xc1\xbf",         "\xe2\x82",        "\xe0\x80\x80",
                                      "\xe0\x9f\xbf", "\xed\xa0\x80",     "\xed\xbf\xbf",     "\xf0\x8f\xbf\xbf",
                                      "\xf4\x90\x80\x80", "\xf4\xbf\xbf\xbf", "\xf5\x80\x80\x80"};
  for (uint32_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    char written[64] = "\"";
    for (size_t c = 0; wrong[i][c] != 0; c++) strcat(written, "\\ufffd");
    expect_written(wrong[i], strcat(written, "\""));
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(full_attention_is_attention),
                                     cmocka_unit_test(how_the_work_is_cut_does_not_matter),
                                     cmocka_unit_test(a_budget_that_covers_all_is_full_attention),
                                     cmocka_unit_test(every_cache_type_comes_close),
                                     cmocka_unit_test(wrong_models_are_refused),
                                     cmocka_unit_test(json_holds_utf8_alone)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
