/* One random policy with a toy model to run over, and the loop over all methods. */
#ifndef KVSIFT_TESTS_SUBJECT_H
#define KVSIFT_TESTS_SUBJECT_H

#include "random.h"
#include "session.h"

typedef struct subject {
  test_random random;
  kvsift_policy_config config;
  toy *toy;                /* plain: contiguous float32 */
  uint32_t prompt, steps;  /* their sum is at least 7 below the capacity */
} subject;

extern const toy_form plain_form;

/* Runs `property` on `count` random subjects of every method in the build. */
void each_subject(uint32_t count, void (*property)(subject *x));
void each_subject_of(kvsift_method method, uint32_t count, void (*property)(subject *x));

/* Fails where the two gave different answers. */
void expect_same(const session *a, const session *b, const char *what);

#endif
