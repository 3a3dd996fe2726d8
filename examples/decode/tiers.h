/* What a cache in two tiers is asked for and tells of, on the CPU and on a CUDA device. */
#ifndef DECODE_TIERS_H
#define DECODE_TIERS_H

#include <kvsift/store.h>

#include "failure.h"

/* Blocks of a KV head in the fast tier: a quarter of all where `asked` is UNSET. */
uint32_t tiers_fast_blocks(uint32_t asked, uint32_t max_tokens, uint32_t block_tokens);

/* Whether the choice for the token after `tokens` needs neither query nor keys, so that it can be
 * fetched while the other layers compute. */
bool tiers_look_ahead(const kvsift_policy_config *policy, uint32_t tokens);

void tiers_print_sizes(uint64_t fast_bytes, uint32_t slots, uint32_t block_tokens,
                       uint64_t slow_bytes);
void tiers_print_counters(const kvsift_store_stats *stats, uint64_t steps);

#endif
