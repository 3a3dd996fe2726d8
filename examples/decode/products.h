/* The model's weights on a CUDA device, and the engine's products there. */
#ifndef DECODE_PRODUCTS_H
#define DECODE_PRODUCTS_H

#include "cublas.h"
#include "engine.h"

typedef struct products products;

/* Copies all matrices of `m` to the device, as float32 whatever the file has: they lose nothing and
 * take twice the room of F16. As cublas_open: true with *out null where there is no cuBLASLt. */
bool products_create(products **out, const gpu *on, const model *m, failure *why);
void products_release(products *with); /* null is allowed; the device's stream must be done */

const char *products_name(const products *with);
multiplier products_multiplier(products *with);

#endif
