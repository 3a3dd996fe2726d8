/* What holds for every selection, whatever the method. */
#ifndef KVSIFT_TESTS_LISTS_H
#define KVSIFT_TESTS_LISTS_H

#include "session.h"

/* Fails the test where a list is not ascending, disjoint and non-adjacent, misses sinks, local tokens or the newest
 * token, names the wrong blocks, or keeps more than the budget. `prompt`: tokens before the first decode step. */
void lists_check(const kvsift_policy_config *config, uint32_t prompt, const session_answer *answer);

int list_keeps(const kvsift_selection *sel, uint32_t list, uint32_t token);

/* Budget of a context of `tokens` as the header has it. */
uint32_t budget_of(const kvsift_policy_config *c, uint32_t tokens);

/* PyramidKV's budget of one layer. */
uint32_t pyramid_budget(const kvsift_policy_config *c, uint32_t layer, uint32_t prompt);

#endif
