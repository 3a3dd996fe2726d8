/* Compares the states of two CPU policies of one configuration, the scratch apart. */
#ifndef KVSIFT_TESTS_STATE_DIFFERENCE_H
#define KVSIFT_TESTS_STATE_DIFFERENCE_H

#include <kvsift/kvsift.h>
#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* True, with a sentence about the first byte that differs. */
bool state_difference(const kvsift_policy *a, const kvsift_policy *b, char *sentence, size_t bytes);

#ifdef __cplusplus
}
#endif

#endif
