/* Products of float32 matrices on a CUDA device by cuBLASLt, found at run time like the driver. */
#ifndef DECODE_CUBLAS_H
#define DECODE_CUBLAS_H

#include <stdbool.h>

#include "gpu.h"

typedef struct cublas cublas;

/* True with *out null and a sentence in `why` where the library is not on this machine; false where
 * it is and does not work. */
bool cublas_open(cublas **out, const gpu *on, failure *why);
void cublas_close(cublas *with); /* null is allowed */
const char *cublas_name(const cublas *with);

/* How weights [rows][columns] are multiplied with `inputs` vectors of `columns`; zero it first. */
typedef struct cublas_plan {
  void *weights, *input, *output; /* descriptions of the matrices */
  uint64_t algorithm[8];
} cublas_plan;

bool cublas_make_plan(const cublas *with, cublas_plan *out, uint32_t rows, uint32_t columns,
                      uint32_t inputs, failure *why);
void cublas_release_plan(const cublas *with, cublas_plan *plan); /* also a zeroed one */

/* output[inputs][rows] from device memory to device memory, in the device's stream. */
bool cublas_multiply(const cublas *with, const cublas_plan *plan, const float *weights,
                     const float *input, float *output, failure *why);

#endif
