/* The engine's arithmetic on rows of weights. kernels.c is compiled once for each instruction set;
 * the best one this machine has is chosen at run time. */
#ifndef DECODE_KERNELS_H
#define DECODE_KERNELS_H

#include <stdint.h>

#define TILE_ROWS 4u   /* weight rows */
#define TILE_INPUTS 2u /* input vectors */

typedef struct kernel_table {
  const char *name;
  /* One row of GGML_F16, GGML_BF16 or GGML_Q8_0 elements as floats. */
  void (*expand_row)(uint32_t type, const void *row, uint32_t count, float *out);
  /* out[i * out_stride + r] = rows[r] . inputs[i]: TILE_ROWS rows; one input, or TILE_INPUTS of
   * them. */
  void (*tile)(const float *const *rows, const float *inputs, uint64_t input_stride, uint32_t count,
               float *out, uint64_t out_stride);
  void (*column)(const float *const *rows, const float *input, uint32_t count, float *out);
} kernel_table;

const kernel_table *kernels(void);

float half_to_float(uint16_t half);
uint16_t float_to_half(float value);
float bfloat_to_float(uint16_t bits);
uint16_t float_to_bfloat(float value);

#endif
