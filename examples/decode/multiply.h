/* Products of weights with one or many input vectors, split over threads by weight rows: the result
 * of a row does not depend on how many threads there are. */
#ifndef DECODE_MULTIPLY_H
#define DECODE_MULTIPLY_H

#include "model.h"
#include "workers.h"

typedef struct product {
  const matrix *weights;
  const float *bias; /* null: none */
  float *out;        /* [inputs][weights->rows] */
} product;

/* Who computes products where the engine's own threads do not. */
typedef struct multiplier {
  void *self;
  bool (*multiply)(void *self, const product *products, uint32_t product_count, const float *input,
                   uint32_t inputs, failure *why); /* null: nobody */
} multiplier;

/* All `products` take the same `inputs` vectors of `count` elements. `scratch`: multiply_scratch()
 * floats. */
void multiply(workers *pool, const product *products, uint32_t product_count, const float *input,
              uint32_t inputs, float *scratch);

uint64_t multiply_scratch(const workers *pool, uint32_t most_columns);

void expand_matrix_row(const matrix *from, uint32_t row, float *out);

#endif
