/* The policies that are compared: every method with every tail at every budget, full attention
 * first. */
#ifndef EVAL_CONTESTANT_H
#define EVAL_CONTESTANT_H

#include "eval_options.h"
#include "sift.h"

#define CONTESTANT_NAME_BYTES 64u

typedef struct contestant {
  char name[CONTESTANT_NAME_BYTES];
  kvsift_method method;
  uint32_t tail;
  float share;
  sift sift;
} contestant;

typedef struct contest {
  contestant *list; /* [count]; list[0] is full attention */
  sift **sifts;     /* [count], pointers into list */
  uint32_t count;
  float *unused; /* prompt output of all but the first */
} contest;

/* What a method cannot do is left out, with a line on stderr. */
bool contest_create(contest *out, const eval_options *from, const model *m, uint32_t capacity,
                    failure *why);
void contest_release(contest *out);
bool contest_reset(contest *all, failure *why);

#endif
