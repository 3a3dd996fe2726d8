/* BalanceKV by itself: a long prompt of one KV head compressed 2, 4, 8 and 16 times, the error of attention over what is
 * left beside that of a random sample, and a stream that holds ten times as many tokens in memory that does not grow. */
#include <kvsift/balance.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TOKENS = 16384, DIM = 64, QUERIES = 64, TOPICS = 40, STREAM_TOKENS = 10 * TOKENS };

static uint64_t state = 2026;

/* Uniform in [-1, 1). */
static float noise(void) {
  state = state * 6364136223846793005u + 1442695040888963407u;
  return (float)(int32_t)(state >> 32) * 0x1p-31f;
}

/* Text in miniature: topics come and go; tokens of a topic have like keys and like values. */
static void make_prompt(float *keys, float *values, uint32_t tokens) {
  static float topic_keys[TOPICS][DIM], topic_values[TOPICS][DIM];
  for (int t = 0; t < TOPICS; ++t)
    for (int c = 0; c < DIM; ++c) {
      topic_keys[t][c] = 2.0f * noise();
      topic_values[t][c] = noise();
    }
  int topic = 0;
  for (uint32_t i = 0; i < tokens; ++i) {
    if (noise() > 0.9f) topic = (int)((noise() + 1.0f) * 0.5f * TOPICS);
    for (int c = 0; c < DIM; ++c) {
      keys[i * DIM + c] = topic_keys[topic][c] + noise();
      values[i * DIM + c] = topic_values[topic][c] + noise();
    }
  }
}

static kvsift_view rows(const float *data) {
  kvsift_view view = {0};
  view.data = data;
  view.type = KVSIFT_F32;
  view.token_stride = DIM * sizeof(float);
  return view;
}

static void check(kvsift_status status, const kvsift_error *error) {
  if (status == KVSIFT_OK) return;
  fprintf(stderr, "%s: %s\n", kvsift_status_string(status), error->message);
  exit(1);
}

/* Mean of |o - exact| / |exact| over the queries. */
static double error_of(const float *queries, const float *exact, const kvsift_cache *cache,
                       const kvsift_weighted *set) {
  kvsift_error error;
  double sum = 0.0;
  for (int q = 0; q < QUERIES; ++q) {
    float out[DIM];
    double off = 0.0, all = 0.0;
    check(kvsift_balance_attend(DIM, 0.0f, queries + q * DIM, cache, 0, set, NULL, out, &error), &error);
    for (int c = 0; c < DIM; ++c) {
      const double e = (double)exact[q * DIM + c];
      off += ((double)out[c] - e) * ((double)out[c] - e);
      all += e * e;
    }
    sum += sqrt(off / all);
  }
  return sum / QUERIES;
}

/* The prompt's tokens that stay, with weights; returns how many. */
static uint32_t compress(uint32_t form, uint32_t halvings, const kvsift_cache *cache, uint32_t *index, float *weight) {
  kvsift_error error;
  kvsift_balance_config config = {0};
  config.struct_size = sizeof config;
  config.error = &error;
  check(kvsift_balance_config_init(&config, form), &error);
  config.head_dim = DIM;
  config.halvings = halvings;
  config.error = &error;
  uint64_t bytes = 0;
  check(kvsift_balance_scratch_size(&config, TOKENS, &bytes), &error);
  void *scratch = aligned_alloc(KVSIFT_ARENA_ALIGNMENT, bytes);
  const kvsift_range all = {0, TOKENS};
  uint32_t count = 0;
  check(kvsift_balance_compress(&config, cache, 0, all, scratch, bytes, index, weight, TOKENS, &count, NULL), &error);
  free(scratch);
  return count;
}

static void show_compression(const float *queries, const float *exact, const kvsift_cache *cache) {
  static uint32_t index[TOKENS];
  static float weight[TOKENS];
  printf("one prompt of %d tokens\n%8s %8s %10s %10s\n", TOKENS, "rate", "kept", "balanced", "uniform");
  for (uint32_t halvings = 1; halvings <= 4; ++halvings) {
    double errors[2];
    uint32_t kept = 0;
    for (int u = 0; u < 2; ++u) {
      kept = compress(u == 0 ? KVSIFT_BALANCE_PRACTICAL : KVSIFT_BALANCE_PERMUTATION, halvings, cache, index, weight);
      const kvsift_weighted set = {index, weight, kept, 0};
      errors[u] = error_of(queries, exact, cache, &set);
    }
    printf("%6s%2u %8u %10.4f %10.4f\n", "1/", 1u << halvings, kept, errors[0], errors[1]);
  }
}

static void show_stream(const float *queries, const float *exact, const kvsift_cache *cache) {
  kvsift_error error;
  kvsift_balance_stream_config config = {0};
  config.struct_size = sizeof config;
  check(kvsift_balance_stream_config_init(&config, KVSIFT_BALANCE_PRACTICAL), &error);
  config.balance.head_dim = DIM;
  config.balance.error = &error;
  config.batch_tokens = 1024;
  config.max_tokens = STREAM_TOKENS;
  uint64_t bytes = 0;
  check(kvsift_balance_stream_arena_size(&config, &bytes), &error);
  void *arena = aligned_alloc(KVSIFT_ARENA_ALIGNMENT, bytes);
  kvsift_balance_stream *stream = NULL;
  check(kvsift_balance_stream_create(&config, arena, bytes, &stream), &error);
  printf("\nthe prompt again and again through a stream of %.1f MB\n%8s %8s %10s\n", (double)bytes / 1e6, "tokens",
         "kept", "error");
  for (int pass = 1; pass <= STREAM_TOKENS / TOKENS; ++pass) {
    if (kvsift_balance_stream_push(stream, &cache->keys, &cache->values, 0, TOKENS) != KVSIFT_OK) {
      fprintf(stderr, "%s\n", kvsift_balance_stream_last_error(stream));
      exit(1);
    }
    /* The same tokens twice weigh twice: attention over all of them stays what it was. */
    kvsift_balance_stream_view view = {0};
    view.struct_size = sizeof view;
    check(kvsift_balance_stream_read(stream, &view), &error);
    printf("%8d %8u %10.4f\n", pass * TOKENS, view.numerator.count,
           error_of(queries, exact, &view.cache, &view.numerator));
  }
  free(arena);
}

int main(void) {
  float *keys = malloc(sizeof(float) * TOKENS * DIM), *values = malloc(sizeof(float) * TOKENS * DIM);
  static float queries[QUERIES * DIM], exact[QUERIES * DIM];
  make_prompt(keys, values, TOKENS);
  for (int i = 0; i < QUERIES * DIM; ++i) queries[i] = 1.5f * noise();
  kvsift_cache cache = {0};
  cache.struct_size = sizeof cache;
  cache.tokens = TOKENS;
  cache.keys = rows(keys);
  cache.values = rows(values);

  uint32_t *index = malloc(sizeof(uint32_t) * TOKENS);
  float *ones = malloc(sizeof(float) * TOKENS);
  for (uint32_t i = 0; i < TOKENS; ++i) {
    index[i] = i;
    ones[i] = 1.0f;
  }
  const kvsift_weighted all = {index, ones, TOKENS, 0};
  kvsift_error error;
  for (int q = 0; q < QUERIES; ++q)
    check(kvsift_balance_attend(DIM, 0.0f, queries + q * DIM, &cache, 0, &all, NULL, exact + q * DIM, &error), &error);
  show_compression(queries, exact, &cache);
  show_stream(queries, exact, &cache);
  free(keys);
  free(values);
  free(index);
  free(ones);
  return 0;
}
