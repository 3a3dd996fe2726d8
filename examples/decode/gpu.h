/* Memory and a stream of a CUDA device, by the driver's functions found at run time: the program
 * needs no CUDA to build or start. */
#ifndef DECODE_GPU_H
#define DECODE_GPU_H

#include <stddef.h>
#include <stdint.h>

#include "failure.h"

typedef struct gpu gpu;

/* Null, with a sentence, where there is no device. Nothing may use the stream once it is closed. */
gpu *gpu_open(failure *why);
void gpu_close(gpu *on); /* null is allowed */
void *gpu_stream(const gpu *on);

/* Device memory, and pinned host memory; null where there is none left. */
void *gpu_take(const gpu *on, uint64_t bytes);
void gpu_give(const gpu *on, void *memory);
void *gpu_take_pinned(const gpu *on, uint64_t bytes);
void gpu_give_pinned(const gpu *on, void *memory);

void gpu_wait(const gpu *on); /* for all that is in the stream */

/* Copies in the stream; the second waits for it. */
bool gpu_send(const gpu *on, void *to, const void *from, uint64_t bytes, failure *why);
bool gpu_receive(const gpu *on, void *to, const void *from, uint64_t bytes, failure *why);

#endif
