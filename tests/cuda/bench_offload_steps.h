/* Whole decode steps over a cache in pinned host memory. */
#ifndef KVSIFT_TESTS_CUDA_BENCH_OFFLOAD_STEPS_H
#define KVSIFT_TESTS_CUDA_BENCH_OFFLOAD_STEPS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct offload_steps {
  double late_us, resident_us; /* a layer of a step: with an eighth of the cache in device memory; with all of it */
  double hits;                 /* share of the chosen blocks that were there already, */
  double read_kb;              /*   and what a layer of a step fetched */
} offload_steps;

offload_steps bench_offload_steps(uint32_t tokens, bool quick);

#endif
