/* Select of one layer for a small policy, from C. The Rust and Go programs beside this do the same. */
#include <kvsift/kvsift.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { TOKENS = 1024, HEADS = 4, KV_HEADS = 2, DIM = 64, BUDGET = 192, ROUNDS = 50, CALLS = 1000 };
static float keys[KV_HEADS][TOKENS][DIM], queries[HEADS][DIM];

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void fill(float *numbers, int count) {
  static uint32_t state = 1;
  for (int i = 0; i < count; i++) {
    state = state * 1664525u + 1013904223u;
    numbers[i] = (float)(state >> 8) / (1 << 24) - 0.5f;
  }
}

static kvsift_policy *make_policy(void) {
  kvsift_policy_config config = {.struct_size = sizeof config};
  kvsift_policy *policy = NULL;
  uint64_t bytes, alignment;
  kvsift_policy_config_init(&config, KVSIFT_METHOD_STREAMING);
  config.layers = 1, config.query_heads = HEADS, config.kv_heads = KV_HEADS, config.head_dim = DIM;
  config.max_tokens = TOKENS, config.budget_tokens = BUDGET, config.dense_layers = 0;
  if (kvsift_policy_arena_size(&config, &bytes, &alignment) != KVSIFT_OK) exit(1);
  if (kvsift_policy_create(&config, aligned_alloc(alignment, bytes), bytes, &policy) != KVSIFT_OK) exit(1);
  const kvsift_view view = {.data = keys, .token_stride = sizeof keys[0][0], .head_stride = sizeof keys[0]};
  if (kvsift_observe_keys(policy, 0, NULL, 0, TOKENS, &view, &view) != KVSIFT_OK) exit(1);
  return policy;
}

int main(void) {
  double best = 1e30;
  uint64_t ranges = 0;
  fill(&keys[0][0][0], KV_HEADS * TOKENS * DIM);
  fill(&queries[0][0], HEADS * DIM);
  kvsift_policy *policy = make_policy();
  for (int round = 0; round < ROUNDS; round++) {
    const double start = now();
    for (int i = 0; i < CALLS; i++) {
      const kvsift_query query = {.struct_size = sizeof query, .tokens = TOKENS,
                                  .view = {.data = queries, .head_stride = sizeof queries[0]}};
      kvsift_selection kept = {.struct_size = sizeof kept};
      if (kvsift_select_blocks(policy, 0, &query, &kept) != KVSIFT_OK) return 1;
      ranges += kept.range_counts[0];
    }
    const double time = (now() - start) / CALLS;
    if (time < best) best = time;
  }
  printf("{\"language\": \"C\", \"select_ns\": %.1f, \"ranges\": %llu}\n", best, (unsigned long long)ranges);
  return 0;
}
