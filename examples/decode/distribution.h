/* What logits say of the next token. */
#ifndef DECODE_DISTRIBUTION_H
#define DECODE_DISTRIBUTION_H

#include <stdint.h>

/* The first of the largest. */
uint32_t likeliest(const float *logits, uint32_t count);

/* Natural logarithms of the softmax. */
void log_softmax(const float *logits, uint32_t count, double *out);

/* Kullback-Leibler, in nats, of log-probabilities. */
double divergence(const double *from, const double *to, uint32_t count);

#endif
