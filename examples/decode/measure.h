/* How good a choice of tokens is: each decode step's attention held against full attention. */
#ifndef DECODE_MEASURE_H
#define DECODE_MEASURE_H

#include "sift.h"

/* Sums over steps; means are these over `count`. */
typedef struct quality {
  uint64_t count;
  double recovery; /* share of full attention's mass on the tokens kept */
  double ceiling;  /* the same for the best choice of as many whole blocks */
  double error;    /* |out - full| / |full| */
  double kept;     /* share of the tokens kept */
} quality;

typedef struct measure {
  uint32_t layers, query_heads;
  uint32_t every; /* only cache lengths that it divides are judged; 1 after measure_create */
  quality *heads; /* [layers][query_heads], only steps that left something out */
  float *weights; /* scratch, [KV heads] times what a head needs */
  uint64_t head_floats;
} measure;

bool measure_create(measure *out, const model *m, uint32_t capacity, failure *why);
void measure_release(measure *out);
sift_listener measure_listener(measure *with);
quality measure_total(const measure *of);
quality measure_layer(const measure *of, uint32_t layer);
void quality_add(quality *to, const quality *more);

#endif
