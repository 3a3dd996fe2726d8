/* One decode step over a toy cache: which tokens does kvsift read, and what comes out? */
#include <kvsift/kvsift.h>
#include <stdio.h>
#include <stdlib.h>

enum { TOKENS = 2048, HEADS = 4, KV_HEADS = 2, DIM = 64 };
static float keys[KV_HEADS][TOKENS][DIM], values[KV_HEADS][TOKENS][DIM], queries[HEADS][DIM], out[HEADS][DIM];

int main(void) {
  for (int i = 0; i < KV_HEADS * TOKENS * DIM; i++) {
    (&keys[0][0][0])[i] = (float)rand() / (float)RAND_MAX - 0.5f;
    (&values[0][0][0])[i] = (float)rand() / (float)RAND_MAX - 0.5f;
  }
  for (int i = 0; i < HEADS * DIM; i++) (&queries[0][0])[i] = 4 * keys[i / DIM / 2][1000][i % DIM];

  kvsift_error error = {0};
  kvsift_policy_config config = {.struct_size = sizeof config};
  kvsift_policy_config_init(&config, KVSIFT_METHOD_PAGE_STATS);
  config.layers = 1, config.query_heads = HEADS, config.kv_heads = KV_HEADS, config.head_dim = DIM;
  config.max_tokens = TOKENS, config.budget_tokens = 256, config.dense_layers = 0;
  config.tail = KVSIFT_TAIL_MOMENTS, config.error = &error;
  uint64_t bytes, alignment;
  if (kvsift_policy_arena_size(&config, &bytes, &alignment) != KVSIFT_OK) return puts(error.message), 1;
  void *arena = aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
  kvsift_policy *policy;
  if (kvsift_policy_create(&config, arena, bytes, &policy) != KVSIFT_OK) return puts(error.message), 1;

  kvsift_cache cache = {.struct_size = sizeof cache, .tokens = TOKENS, /* strides in bytes; type 0 is float32 */
      .keys = {.data = keys, .token_stride = sizeof keys[0][0], .head_stride = sizeof keys[0]},
      .values = {.data = values, .token_stride = sizeof values[0][0], .head_stride = sizeof values[0]}};
  kvsift_query query = {.struct_size = sizeof query, .tokens = TOKENS,
                        .view = {.data = queries, .head_stride = sizeof queries[0]}};
  kvsift_selection kept = {.struct_size = sizeof kept};
  kvsift_observe_keys(policy, 0, NULL, 0, TOKENS - 1, &cache.keys, &cache.values); /* the prompt ... */
  kvsift_advance(policy, TOKENS - 1);
  cache.keys.data = keys[0][TOKENS - 1], cache.values.data = values[0][TOKENS - 1];
  kvsift_observe_keys(policy, 0, NULL, TOKENS - 1, 1, &cache.keys, &cache.values); /* ... and the new token */
  cache.keys.data = keys, cache.values.data = values;
  if (kvsift_select_blocks(policy, 0, &query, &kept) != KVSIFT_OK ||
      kvsift_decode_attend(policy, 0, &query, &cache, &kept, &out[0][0]) != KVSIFT_OK ||
      kvsift_advance(policy, 1) != KVSIFT_OK) return puts(kvsift_last_error(policy)), 1;
  for (uint32_t list = 0; list < kept.lists; list++) {
    printf("list %u reads", list);
    for (uint32_t i = 0; i < kept.range_counts[list]; i++) {
      kvsift_range range = kept.ranges[list * kept.range_stride + i];
      printf(" %u-%u", range.begin, range.end - 1);
    }
    printf("; output begins %f\n", (double)out[list][0]);
  }
  kvsift_policy_destroy(policy);
  free(arena);
  return 0;
}
