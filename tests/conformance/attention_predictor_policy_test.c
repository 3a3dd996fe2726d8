/* The published AttentionPredictor's own runs through the public functions: the choice of every step, for each of the
 * forms that promise the published result. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "golden_predictor.h"
#include "kvsift/kvsift.h"

enum { MAX_TOKENS = GOLDEN_MAX_COLUMNS * GOLDEN_BLOCK, MAX_HEADS = 4 };

static const golden_case kCases[] = {
    {"random_base", "random_weights", 2, 700, 40, 320, 5},
    {"random_growing", "random_weights", 2, 160, 70, 192, 5},
    {"random_no_calibration", "random_weights", 1, 513, 24, 256, 0},
    {"random_short", "random_weights", 1, 90, 48, 256, 5},
    {"published_base", "published_weights", 4, 1000, 48, 384, 5},
    {"published_period_3", "published_weights", 2, 600, 30, 256, 3},
};

static kvsift_predictor *load_parameters(const float *parameters, void **arena) {
  unsigned char file[24 + 4833 * 4] = "KVSIFTPW";
  const uint32_t version = 1, count = 4833;
  uint64_t hash = 0xcbf29ce484222325u, bytes, alignment;
  memcpy(file + 8, &version, 4);
  memcpy(file + 12, &count, 4);
  memcpy(file + 24, parameters, 4833 * 4);
  for (size_t at = 24; at + 8 <= sizeof file; at += 8) {
    uint64_t word;
    memcpy(&word, file + at, 8);
    hash = (hash ^ word) * 0x100000001b3u;
    hash ^= hash >> 32;
  }
  for (size_t at = sizeof file - 4; at < sizeof file; ++at) hash = (hash ^ file[at]) * 0x100000001b3u;
  memcpy(file + 16, &hash, 8);
  kvsift_predictor *predictor = NULL;
  kvsift_error error = {0};
  assert_int_equal(kvsift_predictor_arena_size(&bytes, &alignment), KVSIFT_OK);
  *arena = aligned_alloc((size_t)alignment, (size_t)bytes);
  if (kvsift_predictor_load(file, sizeof file, *arena, bytes, &predictor, &error) != KVSIFT_OK) fail_msg("%s", error.message);
  return predictor;
}

/* One head a KV head, or all heads in one group with a choice each. */
static kvsift_policy *make_policy(const golden_case *c, const kvsift_predictor *predictor, int grouped, int plain,
                                  void **arena) {
  kvsift_error error = {0};
  kvsift_policy_config config = {.struct_size = sizeof config};
  uint64_t bytes = 0;
  kvsift_policy *policy = NULL;
  assert_int_equal(kvsift_policy_config_init(&config, KVSIFT_METHOD_ATTENTION_PREDICTOR), KVSIFT_OK);
  config.dense_tokens = KVSIFT_DENSE_OFF;
  config.layers = 1;
  config.dense_layers = 0;
  config.query_heads = c->heads;
  config.kv_heads = grouped ? 1 : c->heads;
  config.head_dim = 8;
  config.max_tokens = MAX_TOKENS;
  config.budget_tokens = c->budget;
  config.calibration_period = c->period;
  config.calibration_dense = 0;
  config.predictor = predictor;
  config.predictor_plain = (uint32_t)plain;
  config.error = &error;
  if (kvsift_policy_arena_size(&config, &bytes, NULL) != KVSIFT_OK) fail_msg("%s", error.message);
  *arena = aligned_alloc(KVSIFT_ARENA_ALIGNMENT, (size_t)bytes);
  if (kvsift_policy_create(&config, *arena, bytes, &policy) != KVSIFT_OK) fail_msg("%s", error.message);
  return policy;
}

static void observe(kvsift_policy *policy, const float *rows, uint32_t tokens, int full) {
  const kvsift_observation observation = {.struct_size = sizeof observation, .tokens = tokens, .full = (uint32_t)full,
                                          .rows = rows, .row_stride = MAX_TOKENS};
  if (kvsift_observe_attention(policy, 0, NULL, &observation) != KVSIFT_OK) fail_msg("%s", kvsift_last_error(policy));
}

static void prefill(kvsift_policy *policy, const golden_case *c, const golden_data *g, float *rows) {
  for (uint32_t r = 0; r < GOLDEN_ROWS; ++r) {
    const uint32_t tokens = c->prompt - GOLDEN_ROWS + r + 1;
    for (uint32_t head = 0; head < c->heads; ++head) {
      golden_softmax(golden_prefill_row(c, g, head, r), NULL, tokens, rows + (size_t)head * MAX_TOKENS);
    }
    observe(policy, rows, tokens, 1);
  }
  assert_int_equal(kvsift_advance(policy, c->prompt), KVSIFT_OK);
}

static void mark(const kvsift_selection *s, uint32_t list, unsigned char *kept) {
  memset(kept, 0, s->tokens);
  for (uint32_t i = 0; i < s->range_counts[list]; ++i) {
    const kvsift_range range = s->ranges[(size_t)list * s->range_stride + i];
    assert_true(range.begin < range.end && range.end <= s->tokens);
    memset(kept + range.begin, 1, range.end - range.begin);
  }
}

/* The weakest golden choice and what differs from it must be as good as tied. */
static void check_choice(const golden_case *c, const golden_data *g, const unsigned char *kept, uint32_t head,
                         uint32_t step) {
  const unsigned char *expected = golden_kept(g, head, step);
  const float *scores = golden_predicted(g, head, step);
  const uint32_t left = GOLDEN_SINK / GOLDEN_BLOCK, columns = (uint32_t)g->predicted_cols[step];
  float cut = INFINITY, scale = 0;
  for (uint32_t j = 0; j < columns; ++j) {
    if (expected[(left + j) * GOLDEN_BLOCK]) cut = fminf(cut, scores[j]);
    scale = fmaxf(scale, fabsf(scores[j]));
  }
  for (uint32_t t = 0; t < (uint32_t)g->lens[step]; ++t) {
    if (kept[t] == expected[t]) continue;
    const uint32_t j = t / GOLDEN_BLOCK - left;
    if (j < columns && fabsf(scores[j] - cut) <= 2e-5f * scale) continue;
    fail_msg("%s head %u step %u: token %u differs", c->name, head, step, t);
  }
}

static void run_steps(kvsift_policy *policy, const golden_case *c, const golden_data *g, float *rows) {
  static unsigned char kept[MAX_TOKENS];
  for (uint32_t step = 0; step < c->steps; ++step) {
    const uint32_t tokens = (uint32_t)g->lens[step];
    const int full = c->period != 0 && (step + 1) % c->period == 0;
    const kvsift_query query = {.struct_size = sizeof query, .tokens = tokens};
    kvsift_selection selection = {.struct_size = sizeof selection};
    if (kvsift_select_blocks(policy, 0, &query, &selection) != KVSIFT_OK) fail_msg("%s", kvsift_last_error(policy));
    assert_int_equal(selection.calibration, full);
    assert_int_equal(selection.everything, tokens <= c->budget);
    for (uint32_t head = 0; head < c->heads; ++head) {
      mark(&selection, head, kept);
      if (!selection.everything) check_choice(c, g, kept, head, step);
      golden_softmax(golden_decode_row(g, head, step), full ? NULL : golden_kept(g, head, step), tokens,
                     rows + (size_t)head * MAX_TOKENS);
    }
    observe(policy, rows, tokens, full);
    if (step % 2 == 0) assert_int_equal(kvsift_predict_next(policy, 0, NULL), KVSIFT_OK);
    assert_int_equal(kvsift_advance(policy, 1), KVSIFT_OK);
  }
}

static void run_case(const golden_case *c, const golden_data *g) {
  static float rows[MAX_HEADS * MAX_TOKENS];
  void *weights = NULL, *arena = NULL;
  const kvsift_predictor *predictor = load_parameters(g->parameters, &weights);
  for (int form = 0; form < 4; ++form) {
    kvsift_policy *policy = make_policy(c, predictor, form & 1, form >> 1, &arena);
    prefill(policy, c, g, rows);
    run_steps(policy, c, g, rows);
    assert_int_equal(kvsift_policy_destroy(policy), KVSIFT_OK);
    free(arena);
  }
  free(weights);
}

static void test_policy(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof kCases / sizeof kCases[0]; ++i) {
    golden_data g;
    if (golden_load(&kCases[i], &g) != 0) {
      print_message("skipped %s: no golden data\n", kCases[i].name);
      assert_true(strncmp(kCases[i].name, "random", 6) != 0);
      continue;
    }
    run_case(&kCases[i], &g);
    golden_free(&g);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_policy)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
