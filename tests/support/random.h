/* Small repeatable random numbers for tests. */
#ifndef KVSIFT_TESTS_RANDOM_H
#define KVSIFT_TESTS_RANDOM_H

#include <stdint.h>

typedef struct test_random {
  uint64_t state;
} test_random;

static inline uint32_t random_bits(test_random *r) {
  r->state += 0x9e3779b97f4a7c15u;
  uint64_t z = r->state;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return (uint32_t)((z ^ (z >> 31)) >> 32);
}

/* A whole number in [0, n). */
static inline uint32_t random_below(test_random *r, uint32_t n) {
  return (uint32_t)((uint64_t)random_bits(r) * n >> 32);
}

static inline float random_unit(test_random *r) { return (float)(random_bits(r) >> 8) * 0x1p-24f; }

#endif
