/* The answer once more with products, KV cache and attention on a CUDA device. */
#ifndef DECODE_DEVICE_H
#define DECODE_DEVICE_H

#include "engine.h"
#include "options.h"
#include "products.h"
#include "script.h"
#include "sift.h"

/* What every run with a device has. */
typedef struct device {
  gpu *gpu;
  sift sift;          /* the policy on the CPU, which reads the prompt */
  products *products; /* null: the CPU's */
} device;

/* Reads the prompt and answers on the CPU, then once more with the products of weights on the device
 * (where there is cuBLASLt) and, for the answer, cache and policy too; the text must be the same.
 * Prints both. With --offload as device_offload_answer. */
bool device_answer(engine *e, const script *asked, const kvsift_policy_config *chosen,
                   const options *from, failure *why);

/* With products on the device reads the prompt, and answers with the cache on the device and then
 * with most of it in pinned host memory, whose text must be the same; the latter alone without
 * --compare. Prints both and what was moved. */
bool device_offload_answer(engine *e, const script *asked, device *d, const options *from,
                           failure *why);

#endif
