/* What each method's scores must be, computed the long way in float64 from its paper's definition: all rows, no pages
 * kept, no state but sums. Scores are intervals that float32 rounding (and the storage of page statistics) stays in. */
#ifndef KVSIFT_TESTS_BRUTE_H
#define KVSIFT_TESTS_BRUTE_H

#include "subject.h"

typedef struct brute {
  const subject *x;
  uint32_t lists, blocks;   /* lists of a layer, most blocks */
  double *sums;             /* [layers][lists][blocks] what rows have left behind */
  bool *gone;               /* [layers][lists][blocks] evicted */
} brute;

typedef struct brute_scores {
  double *low, *high;       /* [blocks] */
  uint32_t begin, end;      /* blocks that compete */
  uint32_t most;            /* of them that the budget has room for */
} brute_scores;

brute *brute_new(const subject *x);
void brute_free(brute *b);
/* The method has seen the prompt. */
void brute_prompt(brute *b);
/* The scores a list of this step is chosen by. */
void brute_score(const brute *b, const session_answer *a, uint32_t list, brute_scores *scores);
/* The method sees the step's row, and drops what the step left out. */
void brute_observe(brute *b, const session_answer *a);

#endif
