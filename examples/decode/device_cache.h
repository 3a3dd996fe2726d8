/* A policy and its KV cache on a CUDA device, and the attention of decode steps there. */
#ifndef DECODE_DEVICE_CACHE_H
#define DECODE_DEVICE_CACHE_H

#include <kvsift/kvsift_cuda.h>

#include "gpu.h"
#include "sift.h"

/* The cache as the engine's own lies, and one step's rows. */
typedef struct device_cache {
  const gpu *gpu;
  kvsift_policy_config config;
  uint32_t needs; /* KVSIFT_NEEDS_* */
  kvsift_cuda_policy *policy;
  kvsift_cuda_arenas arenas;
  uint8_t *keys, *values;
  float *key_scales, *value_scales; /* null but for int8 */
  float *query, *out;
  kvsift_observation observation;
  uint64_t rows; /* of the cache */
} device_cache;

/* As `policy` is configured, for what `like` holds. Whatever it answers, release is owed. */
bool device_cache_create(device_cache *out, const gpu *on, const sift *policy, const cache *like,
                         failure *why);
void device_cache_release(device_cache *with); /* also a zeroed one */

/* What both hold now goes to the device; waits for it. */
bool device_cache_fill(device_cache *to, const cache *from, const sift *policy, failure *why);

attention device_cache_attention(device_cache *with);

#endif
