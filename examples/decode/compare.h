/* The same script answered with full attention and with a policy, and what sets the two apart. */
#ifndef DECODE_COMPARE_H
#define DECODE_COMPARE_H

#include "generate.h"
#include "measure.h"
#include "sift.h"

/* One way of attending. */
typedef struct contender {
  sift sift;
  generation run;
  uint64_t cache_bytes; /* read over the run: keys and values ... */
  uint64_t state_bytes; /*   and the policy's own state */
} contender;

typedef struct comparison {
  bool has_full;
  contender full, chosen;
  double prompt_seconds;
  uint32_t capacity;
  /* The policy along the tokens of the full run: */
  quality quality;
  measure measured;       /* the same, layer by layer */
  uint32_t steps, agreed; /* steps, and those with the same likeliest token */
  double divergence;      /* mean KL from full attention's next-token distribution, nats */
} comparison;

/* `chosen` is the policy's configuration, without geometry. With `with_full` both run, else the
 * policy alone. */
bool compare(comparison *out, engine *e, const script *of, const kvsift_policy_config *chosen,
             bool with_full, failure *why);
void comparison_release(comparison *out);

#endif
