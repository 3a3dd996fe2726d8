#include "distribution.h"

#include <math.h>

uint32_t likeliest(const float *logits, uint32_t count) {
  uint32_t best = 0;
  for (uint32_t i = 1; i < count; i++) {
    if (logits[i] > logits[best]) best = i;
  }
  return best;
}

void log_softmax(const float *logits, uint32_t count, double *out) {
  double largest = logits[likeliest(logits, count)], total = 0;
  for (uint32_t i = 0; i < count; i++) total += exp(logits[i] - largest);
  double log_total = largest + log(total);
  for (uint32_t i = 0; i < count; i++) out[i] = logits[i] - log_total;
}

double divergence(const double *from, const double *to, uint32_t count) {
  double total = 0;
  for (uint32_t i = 0; i < count; i++) total += exp(from[i]) * (from[i] - to[i]);
  return total > 0 ? total : 0;
}
