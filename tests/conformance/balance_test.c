/* BalanceKV against the published implementation's own choices, given the random numbers it drew. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <kvsift/balance.h>

#include "../npy.h"

#ifndef KVSIFT_SOURCE_ROOT
#define KVSIFT_SOURCE_ROOT "."
#endif

typedef struct golden_case {
  const char *name;
  float gamma, temperature;
  uint32_t halvings, group;
} golden_case;

static const golden_case cases[] = {{"halve_once", 4.0f, 0.1f, 1, 128},
                                    {"ragged", 0.05f, 0.5f, 2, 128},
                                    {"quarter", 4.0f, 1.0f, 2, 256},
                                    {"small_gamma", 0.002f, 0.1f, 2, 256}};

typedef struct golden_data {
  npy_array keys, values, uniforms[2], kept, weights;
} golden_data;

static int load(const char *root, const char *name, const char *file, npy_array *a) {
  char path[512];
  snprintf(path, sizeof path, "%s/%s/%s.npy", root, name, file);
  return npy_load(path, a);
}

/* 0, or -1 where the case is not there. */
static int load_case(const golden_case *c, golden_data *d) {
  static const char *const roots[] = {KVSIFT_SOURCE_ROOT "/tests/conformance/data/balancekv",
                                      KVSIFT_SOURCE_ROOT "/../shared/golden/balancekv"};
  memset(d, 0, sizeof *d);
  for (size_t i = 0; i < sizeof roots / sizeof *roots; ++i) {
    if (load(roots[i], c->name, "keys", &d->keys) != 0) continue;
    assert_int_equal(load(roots[i], c->name, "values", &d->values), 0);
    assert_int_equal(load(roots[i], c->name, "uniforms_0", &d->uniforms[0]), 0);
    if (c->halvings > 1) assert_int_equal(load(roots[i], c->name, "uniforms_1", &d->uniforms[1]), 0);
    assert_int_equal(load(roots[i], c->name, "kept_index", &d->kept), 0);
    assert_int_equal(load(roots[i], c->name, "weights", &d->weights), 0);
    return 0;
  }
  return -1;
}

static void free_case(golden_data *d) {
  npy_free(&d->keys);
  npy_free(&d->values);
  npy_free(&d->uniforms[0]);
  npy_free(&d->uniforms[1]);
  npy_free(&d->kept);
  npy_free(&d->weights);
}

static kvsift_view head_view(const npy_array *a) {
  kvsift_view view = {0};
  view.data = a->data;
  view.type = KVSIFT_F32;
  view.token_stride = a->shape[2] * 4;
  view.head_stride = a->shape[1] * view.token_stride;
  return view;
}

static int64_t kept_at(const npy_array *a, uint64_t i) {
  return a->item_bytes == 8 ? ((const int64_t *)a->data)[i] : ((const int32_t *)a->data)[i];
}

/* The random numbers of both halvings of one head, one after the other. */
static uint64_t head_uniforms(const golden_data *d, uint32_t head, float *out) {
  uint64_t count = 0;
  for (int t = 0; t < 2; ++t) {
    const npy_array *u = &d->uniforms[t];
    if (u->data == NULL) continue;
    const uint64_t size = u->count / u->shape[0];
    memcpy(out + count, (const float *)u->data + head * size, size * sizeof(float));
    count += size;
  }
  return count;
}

static void check_head(const golden_case *c, const golden_data *d, uint32_t head) {
  const uint32_t tokens = (uint32_t)d->keys.shape[1], expected = (uint32_t)d->kept.shape[1];
  float *uniforms = malloc(sizeof(float) * 4 * (tokens + c->group));
  float *weight = malloc(sizeof(float) * tokens), *wanted = calloc(tokens, sizeof(float));
  uint32_t *index = malloc(sizeof(uint32_t) * tokens), count = 0;
  kvsift_error error = {0};
  kvsift_balance_config config = {0};
  config.struct_size = sizeof config;
  assert_int_equal(kvsift_balance_config_init(&config, KVSIFT_BALANCE_PRACTICAL), KVSIFT_OK);
  config.head_dim = (uint32_t)d->keys.shape[2];
  config.halvings = c->halvings;
  config.group_tokens = c->group;
  config.gamma = c->gamma;
  config.temperature = c->temperature;
  config.weights = KVSIFT_BALANCE_PUBLISHED;
  config.uniforms = uniforms;
  config.uniform_count = head_uniforms(d, head, uniforms);
  config.error = &error;
  kvsift_cache cache = {0};
  cache.struct_size = sizeof cache;
  cache.tokens = tokens;
  cache.keys = head_view(&d->keys);
  cache.values = head_view(&d->values);
  uint64_t bytes = 0;
  assert_int_equal(kvsift_balance_scratch_size(&config, tokens, &bytes), KVSIFT_OK);
  void *scratch = aligned_alloc(KVSIFT_ARENA_ALIGNMENT, bytes);
  const kvsift_range range = {0, tokens};
  const kvsift_status status = kvsift_balance_compress(&config, &cache, head, range, scratch, bytes, index,
                                                       weight, tokens, &count, NULL);
  if (status != KVSIFT_OK) fail_msg("%s", error.message);

  assert_int_equal(count, expected);
  for (uint32_t i = 0; i < expected; ++i) {
    const uint64_t at = (uint64_t)head * expected + i;
    wanted[kept_at(&d->kept, at)] = ((const float *)d->weights.data)[at];
  }
  for (uint32_t i = 0, at = 0; i < tokens; ++i) {
    const float got = at < count && index[at] == i ? weight[at++] : 0.0f;
    if (got != wanted[i]) {
      fail_msg("%s, head %u: token %u of group %u has weight %g, published %g", c->name, head, i, i / c->group,
               (double)got, (double)wanted[i]);
    }
  }
  free(scratch);
  free(index);
  free(weight);
  free(wanted);
  free(uniforms);
}

static void check_case(void **state) {
  const golden_case *c = *state;
  golden_data d;
  if (load_case(c, &d) != 0) {
    printf("[  SKIPPED ] %s: neither copied nor under ../shared\n", c->name);
    skip();
  }
  for (uint32_t head = 0; head < d.keys.shape[0]; ++head) check_head(c, &d, head);
  free_case(&d);
}

int main(void) {
  struct CMUnitTest tests[sizeof cases / sizeof *cases];
  for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
    const struct CMUnitTest test = {cases[i].name, check_case, NULL, NULL, (void *)&cases[i]};
    tests[i] = test;
  }
  return cmocka_run_group_tests(tests, NULL, NULL);
}
