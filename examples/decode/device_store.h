/* A KV cache larger than device memory: a kvsift store holds it in pinned host memory, and only a
 * few blocks of each layer are on the device. */
#ifndef DECODE_DEVICE_STORE_H
#define DECODE_DEVICE_STORE_H

#include "device_policy.h"

typedef struct device_store {
  device_policy policy;
  sift *reader; /* the same policy on the CPU, which reads the prompt */
  kvsift_cuda_store *store;
  kvsift_cuda_store_config config;
  kvsift_cuda_arenas arenas;
  uint8_t *keys, *values; /* new rows on their way: [KV head][ENGINE_BATCH] */
  float *key_scales, *value_scales; /* null but for int8 */
} device_store;

/* For what `like` holds, with `fast_blocks` blocks of a KV head on the device, or a quarter where
 * that is UNSET. Whatever it answers, release is owed. */
bool device_store_create(device_store *out, const gpu *on, sift *reader, const cache *like,
                         uint32_t fast_blocks, failure *why);
void device_store_release(device_store *with); /* also a zeroed one */

/* A prompt's attention is the reader's, over the engine's own rows; the store gets them part by
 * part, so the fast tier need not hold a prompt. */
attention device_store_reading(device_store *with);

/* What the reader learnt goes to the device; waits for all that is on its way. */
bool device_store_begin(device_store *with, failure *why);

/* Of decode steps, which read the slots on the device alone. */
attention device_store_attention(device_store *with);

/* Waits for all that is on its way, and tells what the device found wrong on it. */
bool device_store_finish(device_store *with, kvsift_store_stats *stats, failure *why);

#endif
