/* Snapshots that are cut short, flipped, of another version or configuration: refused, and the policy goes on. */
#include "guarded.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "cases.h"
#include "mistakes.h"

enum { VERSION_AT = 8, WEIGHTS_AT = 36, CONFIG_AT = 56 };

static kvsift_policy_config config_of(kvsift_method method) {
  kvsift_policy_config c = {.struct_size = sizeof c};
  must(NULL, kvsift_policy_config_init(&c, method));
  c.dense_tokens = KVSIFT_DENSE_OFF;
  c.layers = 2;
  c.query_heads = 4;
  c.kv_heads = 2;
  c.head_dim = 8;
  c.max_tokens = 96;
  c.dense_layers = 0;
  c.block_tokens = c.page_tokens = 4;
  c.budget_tokens = 40;
  c.sink_tokens = 4;
  c.local_tokens = 8;
  c.rollback_tokens = 2;
  c.history_rows = 6;
  return c;
}

static const toy_form plain = {KVSIFT_F32, 0, false, false, 0};

static uint8_t *save(const mistake_room *m, uint64_t *bytes) {
  must(m->p, kvsift_snapshot_size(m->p, bytes));
  uint8_t *buffer = guarded_new(*bytes);
  must(m->p, kvsift_snapshot_save(m->p, buffer, *bytes, NULL));
  return buffer;
}

/* Every length up to the header's end, and some beyond; the buffer ends where the bytes do. */
static void check_cuts(mistake_room *m, const uint8_t *good, uint64_t bytes) {
  const uint64_t header = CONFIG_AT + sizeof(kvsift_policy_config);
  for (uint64_t cut = 0; cut < bytes; cut += cut < header + 8 ? 1 : 97) {
    uint8_t *part = guarded_new(cut);
    memcpy(part, good, cut);
    cases_name("the first %llu of %llu bytes", (unsigned long long)cut, (unsigned long long)bytes);
    const kvsift_status status = kvsift_snapshot_load(m->p, part, cut);
    expect(status == KVSIFT_CORRUPT, "status %d", status);
    expect(strstr(kvsift_last_error(m->p), "buffer") != NULL, "%s", kvsift_last_error(m->p));
    if (cut % 64 == 0 || cut + 97 >= bytes) mistakes_check(m, status, KVSIFT_CORRUPT, "buffer");
    guarded_free(part, cut);
  }
}

/* Every byte of the header and some of the body, one bit at a time. */
static void check_flips(mistake_room *m, uint8_t *image, uint64_t bytes) {
  const uint64_t header = CONFIG_AT + sizeof(kvsift_policy_config);
  for (uint64_t at = 0; at < bytes; at += at < header ? 1 : 131) {
    for (uint32_t bit = 0; bit < 8; ++bit) {
      image[at] ^= (uint8_t)(1u << bit);
      cases_name("bit %u of byte %llu is flipped", bit, (unsigned long long)at);
      const kvsift_status status = kvsift_snapshot_load(m->p, image, bytes);
      const bool version = at >= VERSION_AT && at < VERSION_AT + 4;
      const bool config = (at >= CONFIG_AT && at < header) || (at >= WEIGHTS_AT && at < WEIGHTS_AT + 4);
      /* What is not compared (pointers, padding, the sign of a zero) the checksum covers. */
      expect(status == (version ? KVSIFT_VERSION_MISMATCH : KVSIFT_CORRUPT) || (config && status == KVSIFT_CONFIG_MISMATCH),
             "status %d: %s", status, kvsift_last_error(m->p));
      image[at] ^= (uint8_t)(1u << bit);
    }
    if (at % 16 == 0) mistakes_check(m, kvsift_snapshot_load(m->p, image, 8), KVSIFT_CORRUPT, "buffer");
  }
}

static void test_damage(void **state) {
  (void)state;
  static const kvsift_method methods[] = {KVSIFT_METHOD_EMA, KVSIFT_METHOD_SNAPKV, KVSIFT_METHOD_ATTENTION_PREDICTOR};
  for (size_t i = 0; i < sizeof methods / sizeof methods[0]; ++i) {
    const kvsift_policy_config c = config_of(methods[i]);
    uint64_t bytes;
    mistake_room m;
    mistakes_begin(&m, &c, plain, BEFORE_STEP);
    uint8_t *image = save(&m, &bytes);
    check_cuts(&m, image, bytes);
    check_flips(&m, image, bytes);
    must(m.p, kvsift_snapshot_load(m.p, image, bytes));
    mistakes_check(&m, kvsift_snapshot_load(m.p, image, 3), KVSIFT_CORRUPT, "buffer of 3 bytes");
    guarded_free(image, bytes);
    mistakes_end(&m);
  }
}

/* What a policy takes no notice of, padding among it, a snapshot does not go by. */
static void test_same_configuration(void **state) {
  (void)state;
  const kvsift_policy_config own = config_of(KVSIFT_METHOD_EMA);
  kvsift_policy_config other;
  memcpy(&other, &own, sizeof own);
  other.tensor_attention = 1;
  const size_t end = offsetof(kvsift_policy_config, tensor_attention) + sizeof other.tensor_attention;
  memset((char *)&other + end, 0xee, sizeof other - end);
  mistake_room m, second;
  mistakes_begin(&m, &own, plain, BEFORE_STEP);
  mistakes_begin(&second, &other, plain, BEFORE_STEP);
  uint64_t bytes, second_bytes;
  uint8_t *image = save(&m, &bytes), *second_image = save(&second, &second_bytes);
  assert_int_equal(bytes, second_bytes);
  assert_memory_equal(image, second_image, bytes);
  must(m.p, kvsift_snapshot_load(m.p, second_image, bytes));
  guarded_free(image, bytes);
  guarded_free(second_image, bytes);
  mistakes_end(&m);
  mistakes_end(&second);
}

/* A snapshot fits policies of its own configuration only; the sentence says in what it differs. */
static void test_other_configuration(void **state) {
  (void)state;
  const kvsift_policy_config own = config_of(KVSIFT_METHOD_EMA);
  kvsift_policy_config others[] = {own, own, own, own, config_of(KVSIFT_METHOD_QUEST)};
  others[0].budget_tokens = 41;
  others[1].seed = 1;
  others[2].ema_decay = 0.25f;
  others[3].head_dim = 16;
  static const char *const words[] = {"budget_tokens is 41|the policy's 40", "seed is 1", "ema_decay is 0.25", "head_dim is 16",
                                      "method is 5|the policy's 7"};
  uint64_t bytes;
  mistake_room m;
  mistakes_begin(&m, &own, plain, BEFORE_STEP);
  for (size_t i = 0; i < sizeof others / sizeof others[0]; ++i) {
    mistake_room other;
    mistakes_begin(&other, &others[i], plain, BEFORE_STEP);
    uint8_t *image = save(&other, &bytes);
    cases_name("configuration %zu", i);
    mistakes_check(&m, kvsift_snapshot_load(m.p, image, bytes), KVSIFT_CONFIG_MISMATCH, words[i]);
    guarded_free(image, bytes);
    mistakes_end(&other);
  }
  mistakes_end(&m);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_damage), cmocka_unit_test(test_same_configuration),
                                     cmocka_unit_test(test_other_configuration)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
