/* The predictor's network by itself, for tests and benchmarks: one history on the heap. */
#ifndef KVSIFT_TESTS_PREDICTOR_PROBE_H
#define KVSIFT_TESTS_PREDICTOR_PROBE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { PROBE_LEVELS = 4, PROBE_PARAMETERS = 4833 };

typedef struct probe_shape {
  uint32_t level;      /* 0 .. PROBE_LEVELS - 1 */
  uint32_t rows, rollback, columns;
  uint32_t left, local;
  uint32_t form;       /* 0: float, 1: half, 2: a byte */
  float floor;
  uint32_t arithmetic; /* 0: float, 1: int8, 2: bf16 */
  uint32_t no_vnni;    /* 1: int8 without instructions of its own */
  const float *parameters; /* in file order, copied; null: the built-in ones */
} probe_shape;

typedef struct probe probe;

const char *probe_level_name(uint32_t level); /* null where it cannot run here */
probe *probe_new(const probe_shape *shape);
probe *probe_copy(const probe *p);
void probe_free(probe *p);
void probe_append(probe *p, const float *shares, uint32_t columns);
int probe_can_truncate(const probe *p, uint32_t rows);
void probe_truncate(probe *p, uint32_t rows, uint32_t columns);
uint32_t probe_scores(probe *p, int plain, float *scores); /* the crop's right edge */
uint32_t probe_rows(const probe *p);
float probe_share(const probe *p, uint32_t row, uint32_t column);
void probe_counters(const probe *p, uint64_t *computed, uint64_t *total);
int probe_has_bits(uint32_t arithmetic); /* whether scores are those of support/naive_predictor.h, bit for bit */
const float *probe_default_parameters(void);

#ifdef __cplusplus
}
#endif

#endif
