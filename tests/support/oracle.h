/* Attention in float64, written as in a textbook. */
#ifndef KVSIFT_TESTS_ORACLE_H
#define KVSIFT_TESTS_ORACLE_H

#include "session.h"

double oracle_scale(const kvsift_policy_config *c);

/* logits[t] = q . k_t * scale of one query head over tokens [0, tokens). */
void oracle_logits(const toy *t, const kvsift_policy_config *c, uint32_t layer, uint32_t query_head, uint32_t query_token,
                   uint32_t tokens, double *logits);

/* In place: logits to shares over all `tokens`. */
void oracle_softmax(double *logits, uint32_t tokens);

/* The answer of one query head: attention over the list's tokens, and the tail that the selection has.
 * The moments are taken from the keys themselves, in float64. */
void oracle_attend(const toy *t, const kvsift_policy_config *c, const session_answer *a, uint32_t query_head, double *out);

#endif
