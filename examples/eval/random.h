/* Small repeatable random numbers. */
#ifndef EVAL_RANDOM_H
#define EVAL_RANDOM_H

#include <stdint.h>

typedef struct random_state {
  uint64_t state;
} random_state;

static inline uint64_t random_bits(random_state *r) {
  uint64_t z = r->state += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

static inline uint32_t random_below(random_state *r, uint32_t n) {
  return (uint32_t)((random_bits(r) >> 32) * n >> 32);
}

static inline double random_unit(random_state *r) {
  return (double)(random_bits(r) >> 11) * 0x1p-53;
}

#endif
