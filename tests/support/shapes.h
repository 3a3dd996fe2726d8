/* Random configurations, small enough to run by the thousand. */
#ifndef KVSIFT_TESTS_SHAPES_H
#define KVSIFT_TESTS_SHAPES_H

#include "kvsift/kvsift.h"
#include "random.h"

/* A valid configuration of `method`: geometry, budget, grouping, tail, rollback and the method's own settings vary. */
kvsift_policy_config shape_config(test_random *r, kvsift_method method);

/* Whether this build has the method; prints a line where it does not. */
int shape_supported(kvsift_method method);

#endif
