/* The answer once more with the KV cache in slow memory: a kvsift store holds it, and only a few
 * blocks of each layer are in fast memory. */
#ifndef DECODE_OFFLOAD_H
#define DECODE_OFFLOAD_H

#include <kvsift/store.h>

#include "engine.h"
#include "options.h"
#include "script.h"

/* Answers with everything in memory, unless --no-compare, and then from the store, whose text must
 * be the same unless --late-blocks caps what is waited for; prints both and what was moved. */
bool offload_answer(engine *e, const script *asked, const kvsift_policy_config *chosen,
                    const options *from, failure *why);

/* What happened in the store when, for chrome://tracing and Perfetto. */
bool offload_write_trace(kvsift_store *store, const char *path, failure *why);

#endif
