/* Whole decode steps over a cache in pinned host memory. */
#ifndef KVSIFT_TESTS_CUDA_BENCH_OFFLOAD_STEPS_H
#define KVSIFT_TESTS_CUDA_BENCH_OFFLOAD_STEPS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct offload_form {
  const char *name;
  uint32_t share;        /* 1 / share of the cache in device memory */
  bool int8;             /* storage */
  uint32_t late_blocks;  /* KVSIFT_STORE_NO_LIMIT: no cap */
  bool checksums;
} offload_form;

typedef struct offload_steps {
  double us;      /* a layer of a step */
  double hits;    /* share of the chosen blocks that were there already, */
  double dropped; /*   and of those that a late cap left out */
  double read_kb; /* what a layer of a step fetched */
} offload_steps;

offload_steps bench_offload_steps(uint32_t tokens, bool quick, offload_form form);

#endif
