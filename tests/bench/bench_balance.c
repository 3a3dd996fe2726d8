/* BalanceKV on one KV head: time, and share of the machine's multiply-add peak over the operations of the Gram matrices.
 * Counted are the pairs j < i of each group, two inner products each: what the walk needs, not what a full square has.
 * With a second argument the inputs are written there as raw float32 (keys, then values), for balance_baseline.py. */
#include <kvsift/balance.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "peak.h"

enum { TOKENS = 32768, DIM = 128, HALVINGS = 2, GROUP = 256 };

static uint64_t state = 1;
static float noise(void) {
  state = state * 6364136223846793005ull + 1442695040888963407ull;
  return (float)(int32_t)(state >> 32) * 0x1p-31f;
}

static double gram_operations(uint32_t tokens, uint32_t group, uint32_t halvings, uint32_t dim) {
  double pairs = 0.0;
  for (uint32_t t = 0; t < halvings; ++t, tokens /= 2) {
    for (uint32_t first = 0; first < tokens; first += group) {
      const double size = tokens - first < group ? tokens - first : group;
      pairs += size * (size - 1.0) / 2.0;
    }
  }
  return pairs * 2.0 * 2.0 * dim;
}

static kvsift_view rows(const void *data, kvsift_type type) {
  kvsift_view view = {0};
  view.data = data;
  view.type = type;
  view.token_stride = DIM * (type == KVSIFT_F32 ? 4u : 2u);
  return view;
}

static double best_time(const kvsift_balance_config *config, const kvsift_cache *cache, int runs) {
  uint64_t bytes = 0;
  uint32_t *index = malloc(TOKENS * sizeof *index), count = 0;
  float *weight = malloc(TOKENS * sizeof *weight);
  kvsift_balance_scratch_size(config, TOKENS, &bytes);
  void *scratch = aligned_alloc(KVSIFT_ARENA_ALIGNMENT, bytes);
  const kvsift_range range = {0, TOKENS};
  double best = 1e9;
  for (int i = 0; i < runs; ++i) {
    const double start = bench_seconds();
    if (kvsift_balance_compress(config, cache, 0, range, scratch, bytes, index, weight, TOKENS, &count, NULL) !=
        KVSIFT_OK) {
      fprintf(stderr, "%s\n", config->error->message);
      exit(1);
    }
    const double seconds = bench_seconds() - start;
    if (seconds < best) best = seconds;
  }
  free(scratch);
  free(index);
  free(weight);
  return best;
}

int main(int argc, char **argv) {
  const int runs = argc > 1 ? atoi(argv[1]) : 10;
  float *keys = malloc(sizeof(float) * TOKENS * DIM), *values = malloc(sizeof(float) * TOKENS * DIM);
  uint16_t *narrow = malloc(4 * TOKENS * DIM);
  for (uint32_t i = 0; i < TOKENS * DIM; ++i) {
    keys[i] = 2.0f * noise();
    values[i] = noise();
    uint32_t bits[2];
    memcpy(&bits[0], &keys[i], 4);
    memcpy(&bits[1], &values[i], 4);
    narrow[i] = (uint16_t)(bits[0] >> 16);
    narrow[TOKENS * DIM + i] = (uint16_t)(bits[1] >> 16);
  }
  if (argc > 2) {
    FILE *file = fopen(argv[2], "wb");
    if (file == NULL || fwrite(keys, 4, TOKENS * DIM, file) + fwrite(values, 4, TOKENS * DIM, file) !=
                            2 * TOKENS * DIM) {
      return 1;
    }
    fclose(file);
  }
  kvsift_error error = {0};
  kvsift_balance_config config = {0};
  config.struct_size = sizeof config;
  kvsift_balance_config_init(&config, KVSIFT_BALANCE_PRACTICAL);
  config.head_dim = DIM;
  config.halvings = HALVINGS;
  config.group_tokens = GROUP;
  config.error = &error;
  kvsift_cache cache = {0};
  cache.struct_size = sizeof cache;
  cache.tokens = TOKENS;
  cache.keys = rows(keys, KVSIFT_F32);
  cache.values = rows(values, KVSIFT_F32);
  const double peak = bench_peak_flops();
  const double f32 = best_time(&config, &cache, runs);
  cache.keys = rows(narrow, KVSIFT_BF16);
  cache.values = rows(narrow + TOKENS * DIM, KVSIFT_BF16);
  const double bf16 = best_time(&config, &cache, runs);
  config.form = KVSIFT_BALANCE_UNIFORM;
  const double uniform = best_time(&config, &cache, runs);
  const double operations = gram_operations(TOKENS, GROUP, HALVINGS, DIM);
  kvsift_build_info info = {0};
  info.struct_size = sizeof info;
  kvsift_get_build_info(&info);
  printf("{\"bench\": \"balance\", \"level\": \"%s\", \"tokens\": %d, \"dim\": %d, \"halvings\": %d, \"group\": %d, ",
         info.level, TOKENS, DIM, HALVINGS, GROUP);
  printf("\"peak_gflops\": %.1f, \"seconds_f32\": %.5f, \"seconds_bf16\": %.5f, \"seconds_uniform\": %.5f, ",
         peak * 1e-9, f32, bf16, uniform);
  printf("\"share_of_peak_f32\": %.3f, \"share_of_peak_bf16\": %.3f}\n", operations / f32 / peak,
         operations / bf16 / peak);
  free(keys);
  free(values);
  free(narrow);
  return 0;
}
