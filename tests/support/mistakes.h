/* A policy in the middle of its work, with everything the next calls need; tests spoil one thing at a time. */
#ifndef KVSIFT_TESTS_MISTAKES_H
#define KVSIFT_TESTS_MISTAKES_H

#include "session.h"

typedef struct mistake_room {
  session *s;
  toy *toy;
  kvsift_policy *p;
  uint32_t layer;             /* a sparse one */
  uint32_t tokens;            /* of the step that comes */
  /* Valid arguments for that step. */
  kvsift_query query;
  kvsift_view keys, values;
  kvsift_cache cache;
  kvsift_selection selection;
  kvsift_observation observation;
  float *out, *log_sum_exp;
  uint64_t expected;          /* digest of what must come next */
  kvsift_stats stats;
} mistake_room;

/* How far into the step the policy is. */
typedef enum mistake_stage {
  BEFORE_STEP,   /* no keys of the new token yet */
  KEYS_SEEN,     /* keys of all layers are in, nothing is selected */
  ATTENDED,      /* `layer` was selected and attended to; selection and observation are filled */
} mistake_stage;

void mistakes_begin(mistake_room *m, const kvsift_policy_config *config, toy_form form, mistake_stage stage);
void mistakes_end(mistake_room *m);

/* The policy must have answered `status` with a sentence that has all `words` (separated by |), and go on as if the call
 * had not been made. */
void mistakes_check(mistake_room *m, kvsift_status given, kvsift_status status, const char *words);

#endif
