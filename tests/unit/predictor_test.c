/* The predictor's network against nested loops, bit for bit; loading of weights. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "kvsift/kvsift.h"
#include "naive_predictor.h"
#include "predictor_probe.h"
#include "random.h"

enum { MAX_COLUMNS = 96, MAX_ROWS = 12 };

typedef struct window {
  uint32_t rows, columns, left, local;
  float shares[MAX_ROWS][MAX_COLUMNS];
} window;

/* Shares of which about one in `thin` is not zero. */
static void fill(test_random *random, window *w, uint32_t thin) {
  for (uint32_t r = 0; r < w->rows; ++r) {
    for (uint32_t j = 0; j < w->columns; ++j) {
      w->shares[r][j] = random_below(random, thin) == 0 ? random_unit(random) : 0;
    }
  }
}

typedef struct options {
  uint32_t form, arithmetic;
  float floor;
} options;

static uint32_t scores_of(const window *w, uint32_t level, int plain, options o, float *scores, float *kept) {
  const probe_shape shape = {.level = level, .rows = MAX_ROWS, .columns = w->columns, .left = w->left,
                             .local = w->local, .form = o.form, .floor = o.floor, .arithmetic = o.arithmetic};
  probe *p = probe_new(&shape);
  for (uint32_t r = 0; r < w->rows; ++r) probe_append(p, w->shares[r], w->columns);
  const uint32_t right = probe_scores(p, plain, scores);
  for (uint32_t r = 0; r < w->rows; ++r) {
    for (uint32_t j = w->left; j < right; ++j) kept[r * (right - w->left) + j - w->left] = probe_share(p, r, j);
  }
  probe_free(p);
  return right;
}

static void check_window(const window *w, options o) {
  if (!probe_has_bits(o.arithmetic)) return;
  float expected[MAX_COLUMNS], scores[MAX_COLUMNS], kept[MAX_ROWS * MAX_COLUMNS];
  for (uint32_t level = 0; level < PROBE_LEVELS; ++level) {
    if (probe_level_name(level) == NULL) continue;
    for (int plain = 0; plain < 2; ++plain) {
      memset(scores, 0xff, sizeof scores);
      const uint32_t right = scores_of(w, level, plain, o, scores, kept);
      const uint32_t columns = right - w->left;
      naive_scores(probe_default_parameters(), kept, (int)w->rows, (int)columns, (int)o.arithmetic, expected);
      for (uint32_t j = 0; j < columns && columns < 3; ++j) expected[j] = 1;
      assert_memory_equal(scores + w->left, expected, columns * sizeof(float));
    }
  }
}

static void test_bits(void **state) {
  (void)state;
  test_random random = {1};
  for (uint32_t round = 0; round < 24; ++round) {
    window w = {.rows = 1 + random_below(&random, MAX_ROWS), .columns = 1 + random_below(&random, MAX_COLUMNS),
                .left = random_below(&random, 6), .local = random_below(&random, 6)};
    if (w.left + w.local > w.columns) w.left = w.local = 0;
    fill(&random, &w, 1 + round % 8 * 8);
    check_window(&w, (options){round % 3, round / 4 % 3, round % 2 == 0 ? 0 : 0.3f});
  }
}

/* Nothing but zeros: every place is one of the constants. */
static void test_empty(void **state) {
  (void)state;
  for (uint32_t rows = 1; rows < 8; ++rows) {
    for (uint32_t columns = 1; columns < 40; columns += 1 + columns / 8) {
      const window w = {.rows = rows, .columns = columns};
      check_window(&w, (options){rows % 3, rows / 2 % 3, 0});
    }
  }
}

static void test_forms(void **state) {
  (void)state;
  const probe_shape exact = {.rows = 5, .columns = 20, .form = 0, .floor = 0.25f};
  const probe_shape half = {.rows = 5, .columns = 20, .form = 1};
  const probe_shape byte = {.rows = 5, .columns = 20, .form = 2};
  probe *const probes[] = {probe_new(&exact), probe_new(&half), probe_new(&byte)};
  float row[20];
  for (uint32_t j = 0; j < 20; ++j) row[j] = (float)(j * j) / 361.0f;
  for (int i = 0; i < 3; ++i) probe_append(probes[i], row, 20);
  for (uint32_t j = 0; j < 20; ++j) {
    assert_true(probe_share(probes[0], 0, j) == (row[j] < 0.25f ? 0 : row[j]));
    assert_true(fabsf(probe_share(probes[1], 0, j) - row[j]) <= row[j] * 0x1p-11f);
    const float steps = fabsf(sqrtf(probe_share(probes[2], 0, j)) - sqrtf(row[j])) * 255;
    assert_true(steps <= 0.501f);
  }
  assert_true(probe_share(probes[2], 0, 0) == 0);
  for (int i = 0; i < 3; ++i) probe_free(probes[i]);
}

/* The checksum of the format, once more. */
static uint64_t sum_of(const unsigned char *p, size_t bytes) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (; bytes >= 8; bytes -= 8, p += 8) {
    uint64_t word;
    memcpy(&word, p, 8);
    hash = (hash ^ word) * 0x100000001b3u;
    hash ^= hash >> 32;
  }
  for (; bytes > 0; --bytes, ++p) hash = (hash ^ *p) * 0x100000001b3u;
  return hash;
}

enum { FILE_BYTES = 24 + 4833 * 4 };

static void make_file(unsigned char *file) {
  const uint32_t version = 1, count = 4833;
  memcpy(file, "KVSIFTPW", 8);
  memcpy(file + 8, &version, 4);
  memcpy(file + 12, &count, 4);
  memcpy(file + 24, probe_default_parameters(), 4833 * 4);
  const uint64_t sum = sum_of(file + 24, 4833 * 4);
  memcpy(file + 16, &sum, 8);
}

static kvsift_status load(const unsigned char *file, uint64_t bytes, kvsift_error *error) {
  static _Alignas(64) unsigned char arena[65536];
  kvsift_predictor *predictor = NULL;
  const kvsift_status status = kvsift_predictor_load(file, bytes, arena, sizeof arena, &predictor, error);
  assert_int_equal(status == KVSIFT_OK, predictor != NULL);
  return status;
}

static void test_load(void **state) {
  (void)state;
  unsigned char file[FILE_BYTES];
  kvsift_error error = {0};
  make_file(file);
  assert_int_equal(load(file, sizeof file, &error), KVSIFT_OK);
  assert_int_equal(load(file, sizeof file - 1, &error), KVSIFT_CORRUPT);
  assert_int_equal(load(NULL, sizeof file, &error), KVSIFT_INVALID_ARGUMENT);
  file[100] ^= 1;
  assert_int_equal(load(file, sizeof file, &error), KVSIFT_CORRUPT);
  assert_non_null(strstr(error.message, "checksum"));
  make_file(file);
  file[0] = 'x';
  assert_int_equal(load(file, sizeof file, &error), KVSIFT_CORRUPT);
  make_file(file);
  file[8] = 2;
  assert_int_equal(load(file, sizeof file, &error), KVSIFT_VERSION_MISMATCH);
  make_file(file);
  const float bad[] = {NAN, INFINITY, -2e6f};
  for (size_t i = 0; i < 3; ++i) {
    memcpy(file + 24 + 4 * 17, &bad[i], 4);
    const uint64_t sum = sum_of(file + 24, 4833 * 4);
    memcpy(file + 16, &sum, 8);
    assert_int_equal(load(file, sizeof file, &error), KVSIFT_NOT_FINITE);
    assert_non_null(strstr(error.message, "parameter 17"));
  }
}

static void test_load_arena(void **state) {
  (void)state;
  static _Alignas(64) unsigned char arena[65536];
  unsigned char file[FILE_BYTES];
  uint64_t bytes = 0, alignment = 0;
  kvsift_predictor *predictor = NULL;
  kvsift_error error = {0};
  make_file(file);
  assert_int_equal(kvsift_predictor_arena_size(&bytes, &alignment), KVSIFT_OK);
  assert_int_equal(kvsift_predictor_load(file, sizeof file, arena, bytes, &predictor, NULL), KVSIFT_OK);
  assert_int_equal(kvsift_predictor_load(file, sizeof file, arena, bytes - 1, &predictor, &error),
                   KVSIFT_ARENA_TOO_SMALL);
  assert_null(predictor);
  assert_int_equal(kvsift_predictor_load(file, sizeof file, arena + 8, bytes, &predictor, &error), KVSIFT_MISALIGNED);
  assert_int_equal(kvsift_predictor_load(file, sizeof file, NULL, bytes, &predictor, &error), KVSIFT_INVALID_ARGUMENT);
  assert_int_equal(kvsift_predictor_load(file, sizeof file, arena, bytes, NULL, &error), KVSIFT_INVALID_ARGUMENT);
}

static kvsift_policy *make_policy(const unsigned char *file, void *arena, uint64_t room) {
  static _Alignas(64) unsigned char weights[2][65536];
  static int used;
  kvsift_error error = {0};
  kvsift_predictor *predictor = NULL;
  kvsift_policy *policy = NULL;
  kvsift_policy_config c = {.struct_size = sizeof c};
  assert_int_equal(kvsift_policy_config_init(&c, KVSIFT_METHOD_ATTENTION_PREDICTOR), KVSIFT_OK);
  c.layers = c.query_heads = c.kv_heads = 1;
  c.dense_layers = 0;
  c.head_dim = 8;
  c.max_tokens = 256;
  c.error = &error;
  if (file != NULL) {
    assert_int_equal(kvsift_predictor_load(file, FILE_BYTES, weights[used++], sizeof weights[0], &predictor, &error), KVSIFT_OK);
    c.predictor = predictor;
  }
  if (kvsift_policy_create(&c, arena, room, &policy) != KVSIFT_OK) fail_msg("%s", error.message);
  return policy;
}

/* The built-in weights and a file of the same are one; a file with one other weight is not. */
static void test_snapshots_know_their_weights(void **state) {
  (void)state;
  static _Alignas(64) unsigned char arenas[3][1 << 20], image[1 << 20];
  unsigned char file[FILE_BYTES], other[FILE_BYTES];
  uint64_t written = 0;
  float weight;
  make_file(file);
  make_file(other);
  memcpy(&weight, other + 24 + 4 * 4832, 4);
  weight += 0.5f;
  memcpy(other + 24 + 4 * 4832, &weight, 4);
  const uint64_t sum = sum_of(other + 24, 4833 * 4);
  memcpy(other + 16, &sum, 8);
  kvsift_policy *built_in = make_policy(NULL, arenas[0], sizeof arenas[0]);
  kvsift_policy *same = make_policy(file, arenas[1], sizeof arenas[1]);
  kvsift_policy *changed = make_policy(other, arenas[2], sizeof arenas[2]);
  assert_int_equal(kvsift_snapshot_save(built_in, image, sizeof image, &written), KVSIFT_OK);
  assert_int_equal(kvsift_snapshot_load(same, image, written), KVSIFT_OK);
  assert_int_equal(kvsift_snapshot_load(changed, image, written), KVSIFT_CONFIG_MISMATCH);
  assert_non_null(strstr(kvsift_last_error(changed), "predictor weights"));
  assert_int_equal(kvsift_snapshot_save(changed, image, sizeof image, &written), KVSIFT_OK);
  assert_int_equal(kvsift_snapshot_load(built_in, image, written), KVSIFT_CONFIG_MISMATCH);
  assert_int_equal(kvsift_snapshot_load(changed, image, written), KVSIFT_OK);
}

/* The profile is one choice per query head, whatever was set before, and nothing that its documentation does not name. */
static void test_fast_profile(void **state) {
  (void)state;
  kvsift_policy_config plain = {.struct_size = sizeof plain}, fast = {.struct_size = sizeof fast};
  assert_int_equal(kvsift_policy_config_init(&plain, KVSIFT_METHOD_ATTENTION_PREDICTOR), KVSIFT_OK);
  assert_int_equal(kvsift_policy_config_init(&fast, KVSIFT_METHOD_ATTENTION_PREDICTOR), KVSIFT_OK);
  fast.grouping = KVSIFT_GROUP_MAX;
  assert_int_equal(kvsift_policy_config_predictor_fast(&fast), KVSIFT_OK);
  plain.grouping = KVSIFT_GROUP_QUERY_HEAD, plain.calibration_period = 8, plain.calibration_dense = 0;
  plain.history_floor = 0.003f, plain.history_type = KVSIFT_F16, plain.predictor_arithmetic = KVSIFT_I8;
  plain.predict_period = 3;
  assert_memory_equal(&plain, &fast, sizeof plain);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_bits),  cmocka_unit_test(test_empty),      cmocka_unit_test(test_forms),
      cmocka_unit_test(test_load),  cmocka_unit_test(test_load_arena),
      cmocka_unit_test(test_snapshots_know_their_weights), cmocka_unit_test(test_fast_profile),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
