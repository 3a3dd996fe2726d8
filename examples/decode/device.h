/* The answer once more with products, KV cache and attention on a CUDA device. */
#ifndef DECODE_DEVICE_H
#define DECODE_DEVICE_H

#include "engine.h"
#include "options.h"
#include "script.h"

/* Reads the prompt and answers on the CPU, then once more with the products of weights on the device
 * (where there is cuBLASLt) and, for the answer, cache and policy too; the text must be the same.
 * Prints both. */
bool device_answer(engine *e, const script *asked, const kvsift_policy_config *chosen,
                   const options *from, failure *why);

#endif
