/* Threads that share the parts of one piece of work. They wait in between, spinning a moment before
 * they sleep. */
#ifndef DECODE_WORKERS_H
#define DECODE_WORKERS_H

#include <stdint.h>

#include "failure.h"

typedef struct workers workers;

/* Does part `part` of `parts`. */
typedef void work_part(void *context, uint32_t part, uint32_t parts);

workers *workers_start(uint32_t threads, failure *why);
void workers_stop(workers *pool);
uint32_t workers_count(const workers *pool);

/* Runs every part, the caller's thread doing the first, and returns when all are done. */
void workers_run(workers *pool, work_part *part, void *context);

#endif
