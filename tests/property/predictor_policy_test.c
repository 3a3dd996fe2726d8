/* A predictor policy that goes back, forks, is saved and loaded, and predicts early or late chooses what one does that
 * only goes forward; so does one that computes the plain network. All forms, drawn at random. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "kvsift/kvsift.h"
#include "random.h"

enum { MAX_TOKENS = 700, MAX_HEADS = 4, RUNS = 150, LONGEST = 90 };

typedef struct subject {
  kvsift_policy_config config;
  kvsift_policy *policy;
  void *arena;
  uint64_t bytes;
} subject;

static void must(kvsift_status status, const kvsift_policy *policy) {
  if (status != KVSIFT_OK) fail_msg("%s: %s", kvsift_status_string(status), kvsift_last_error(policy));
}

static uint32_t pick(test_random *r, const uint32_t *from, uint32_t count) { return from[random_below(r, count)]; }

static kvsift_policy_config draw_config(test_random *r) {
  static const uint32_t types[] = {KVSIFT_F32, KVSIFT_F16, KVSIFT_I8}, arithmetic[] = {KVSIFT_F32, KVSIFT_I8, KVSIFT_BF16};
  static const uint32_t periods[] = {1, 1, 2, 3, 7}, blocks[] = {1, 4, 16, 16};
  kvsift_policy_config c = {.struct_size = sizeof c};
  assert_int_equal(kvsift_policy_config_init(&c, KVSIFT_METHOD_ATTENTION_PREDICTOR), KVSIFT_OK);
  c.dense_tokens = random_below(r, 3) != 0 ? KVSIFT_DENSE_OFF : random_below(r, 300);
  c.layers = 2;
  c.dense_layers = random_below(r, 2);
  c.kv_heads = 1 + random_below(r, 2);
  c.query_heads = c.kv_heads * (1 + random_below(r, 2));
  c.head_dim = 4;
  c.max_tokens = MAX_TOKENS;
  c.block_tokens = pick(r, blocks, 4);
  c.sink_tokens = random_below(r, 20);
  c.local_tokens = random_below(r, 40);
  c.budget_tokens = c.sink_tokens + c.local_tokens + c.block_tokens + random_below(r, 100);
  c.grouping = random_below(r, 3);
  c.calibration_period = random_below(r, 10);
  c.calibration_dense = random_below(r, 2);
  c.rollback_tokens = random_below(r, 12);
  c.history_rows = 5 + random_below(r, 30);
  c.history_type = pick(r, types, 3);
  c.history_floor = random_below(r, 2) == 0 ? 0 : 0.01f;
  c.predict_period = pick(r, periods, 5);
  c.predictor_arithmetic = pick(r, arithmetic, 3);
  return c;
}

static subject make(const kvsift_policy_config *config) {
  subject s = {.config = *config};
  kvsift_error error = {0};
  s.config.error = &error;
  if (kvsift_policy_arena_size(&s.config, &s.bytes, NULL) != KVSIFT_OK) fail_msg("%s", error.message);
  s.arena = aligned_alloc(KVSIFT_ARENA_ALIGNMENT, (size_t)s.bytes);
  memset(s.arena, 0xa5, (size_t)s.bytes);
  if (kvsift_policy_create(&s.config, s.arena, s.bytes, &s.policy) != KVSIFT_OK) fail_msg("%s", error.message);
  return s;
}

/* A head's attention at a length: fixed by what it is for, so that a step taken again sees the same. */
static void attention(uint32_t layer, uint32_t head, uint32_t tokens, float *row) {
  test_random r = {(uint64_t)tokens * 64 + layer * 8 + head};
  float sum = 0;
  for (uint32_t t = 0; t < tokens; ++t) {
    const float x = random_unit(&r);
    row[t] = x * x * x * x * (t % 48 < 8 ? 4.0f : 1.0f);
    sum += row[t];
  }
  for (uint32_t t = 0; t < tokens; ++t) row[t] /= sum;
}

static void observe(const subject *s, uint32_t layer, uint32_t tokens, const kvsift_selection *selection) {
  static float rows[MAX_HEADS * MAX_TOKENS], whole[MAX_TOKENS];
  const uint32_t group = s->config.query_heads / s->config.kv_heads;
  const int full = selection == NULL || selection->everything || selection->calibration;
  memset(rows, 0, sizeof rows);
  for (uint32_t h = 0; h < s->config.query_heads; ++h) {
    attention(layer, h, tokens, full ? rows + (size_t)h * MAX_TOKENS : whole);
    const uint32_t list = full || selection->per_query_head ? h : h / group;
    for (uint32_t i = 0; !full && i < selection->range_counts[list]; ++i) {
      const kvsift_range range = selection->ranges[(size_t)list * selection->range_stride + i];
      memcpy(rows + (size_t)h * MAX_TOKENS + range.begin, whole + range.begin, (range.end - range.begin) * sizeof(float));
    }
  }
  const kvsift_observation seen = {.struct_size = sizeof seen, .tokens = tokens, .full = (uint32_t)full, .rows = rows,
                                   .row_stride = MAX_TOKENS};
  must(kvsift_observe_attention(s->policy, layer, NULL, &seen), s->policy);
}

static void prompt(const subject *s, uint32_t tokens) {
  const uint32_t rows = s->config.history_rows < tokens ? s->config.history_rows : tokens;
  for (uint32_t layer = 0; layer < s->config.layers; ++layer) {
    for (uint32_t r = 0; r < rows; ++r) observe(s, layer, tokens - rows + r + 1, NULL);
  }
  must(kvsift_advance(s->policy, tokens), s->policy);
}

/* A fingerprint of the step's lists. */
static uint64_t step(const subject *s, uint32_t tokens, int early) {
  uint64_t print = 14695981039346656037u;
  for (uint32_t layer = 0; layer < s->config.layers; ++layer) {
    const kvsift_query query = {.struct_size = sizeof query, .tokens = tokens};
    kvsift_selection selection = {.struct_size = sizeof selection};
    must(kvsift_select_blocks(s->policy, layer, &query, &selection), s->policy);
    for (uint32_t list = 0; list < selection.lists; ++list) {
      for (uint32_t i = 0; i < selection.range_counts[list]; ++i) {
        const kvsift_range range = selection.ranges[(size_t)list * selection.range_stride + i];
        print = ((print ^ range.begin) * 1099511628211u ^ range.end) * 1099511628211u;
      }
    }
    observe(s, layer, tokens, &selection);
    if (early) must(kvsift_predict_next(s->policy, layer, NULL), s->policy);
  }
  must(kvsift_advance(s->policy, 1), s->policy);
  return print;
}

static void take_fork(subject *s) {
  subject copy = *s;
  copy.arena = aligned_alloc(KVSIFT_ARENA_ALIGNMENT, (size_t)s->bytes);
  must(kvsift_fork(s->policy, copy.arena, copy.bytes, &copy.policy), s->policy);
  memset(s->arena, 0xff, (size_t)s->bytes);
  free(s->arena);
  *s = copy;
}

static void take_snapshot(subject *s) {
  uint64_t bytes = 0, written = 0;
  must(kvsift_snapshot_size(s->policy, &bytes), s->policy);
  void *image = malloc((size_t)bytes);
  must(kvsift_snapshot_save(s->policy, image, bytes, &written), s->policy);
  subject other = make(&s->config);
  must(kvsift_snapshot_load(other.policy, image, written), other.policy);
  free(image);
  free(s->arena);
  *s = other;
}

static void run(uint32_t seed) {
  test_random r = {seed};
  const kvsift_policy_config config = draw_config(&r);
  uint64_t prints[LONGEST];
  const uint32_t start = 1 + random_below(&r, 500), steps = 20 + random_below(&r, LONGEST - 20);
  subject straight = make(&config), other = make(&config);
  kvsift_policy_config plain_config = config;
  plain_config.predictor_plain = 1;
  subject plain = make(&plain_config);
  prompt(&straight, start);
  prompt(&other, start);
  prompt(&plain, start);
  for (uint32_t i = 0; i < steps; ++i) {
    prints[i] = step(&straight, start + i + 1, 0);
    assert_true(step(&plain, start + i + 1, 0) == prints[i]);
  }
  /* How far back is counted from the longest the cache ever was. */
  for (uint32_t i = 0, highest = 0; i < steps;) {
    assert_true(step(&other, start + i + 1, (int)random_below(&r, 2)) == prints[i]);
    ++i;
    if (i > highest) highest = i;
    if (random_below(&r, 6) == 0) {
      const uint32_t least = highest < config.rollback_tokens ? 0 : highest - config.rollback_tokens;
      i -= random_below(&r, i - least + 1);
      must(kvsift_truncate(other.policy, start + i), other.policy);
    }
    if (random_below(&r, 12) == 0) take_fork(&other);
    if (random_below(&r, 12) == 0) take_snapshot(&other);
  }
  free(straight.arena);
  free(plain.arena);
  free(other.arena);
}

static void test_runs(void **state) {
  (void)state;
  const char *cases = getenv("KVSIFT_TEST_CASES"); /* slow machines, see cases.h */
  const uint32_t runs = cases != NULL ? (uint32_t)strtoul(cases, NULL, 10) : RUNS;
  for (uint32_t seed = 0; seed < runs; ++seed) run(seed);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_runs)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
