/* The answer once more with the KV cache and all attention on a CUDA device. */
#ifndef DECODE_DEVICE_H
#define DECODE_DEVICE_H

#include "engine.h"
#include "options.h"
#include "script.h"

/* Reads the prompt on the CPU, answers there and then from a copy of cache and policy on the
 * device; the text must be the same. Prints both. Products of weights stay on the CPU. */
bool device_answer(engine *e, const script *asked, const kvsift_policy_config *chosen,
                   const options *from, failure *why);

#endif
