#include "tiers.h"

#include <inttypes.h>

#include "options.h"

uint32_t tiers_fast_blocks(uint32_t asked, uint32_t max_tokens, uint32_t block_tokens) {
  return asked != UNSET ? asked : max_tokens / block_tokens / 4 + 1;
}

bool tiers_look_ahead(const kvsift_policy_config *policy, uint32_t tokens) {
  return policy->method == KVSIFT_METHOD_ATTENTION_PREDICTOR && policy->verify_blocks == 0 &&
         policy->tail != KVSIFT_TAIL_MOMENTS && tokens < policy->max_tokens;
}

void tiers_print_sizes(uint64_t fast_bytes, uint32_t slots, uint32_t block_tokens,
                       uint64_t slow_bytes) {
  printf("\n  fast memory        %.2f MB, %" PRIu32 " blocks of %" PRIu32 " tokens a layer\n",
         (double)fast_bytes / 1e6, slots, block_tokens);
  printf("  slow memory        %.2f MB\n", (double)slow_bytes / 1e6);
}

void tiers_print_counters(const kvsift_store_stats *stats, uint64_t steps) {
  double hits = (double)stats->hits, ahead = (double)stats->prefetched, late = (double)stats->late;
  double dropped = (double)stats->dropped, each = (double)steps, all = hits + ahead + late + dropped;
  printf("  read a token       %.1f KB in %.1f transfers\n", (double)stats->bytes_read / each / 1e3,
         (double)stats->reads / each);
  printf("  blocks asked for   %.1f %% in fast memory, %.1f %% fetched ahead, %.1f %% late",
         100 * hits / all, 100 * ahead / all, 100 * late / all);
  if (dropped > 0) printf(", %.1f %% too late", 100 * dropped / all);
  puts("");
}
