/* All of a KV cache on a CUDA device beside its policy, and the attention of decode steps there. */
#ifndef DECODE_DEVICE_CACHE_H
#define DECODE_DEVICE_CACHE_H

#include "device_policy.h"

/* The cache lies as the engine's own. */
typedef struct device_cache {
  device_policy policy;
  uint8_t *keys, *values;
  float *key_scales, *value_scales; /* null but for int8 */
  uint64_t rows;
} device_cache;

/* As `policy` is configured, for what `like` holds. Whatever it answers, release is owed. */
bool device_cache_create(device_cache *out, const gpu *on, const sift *policy, const cache *like,
                         failure *why);
void device_cache_release(device_cache *with); /* also a zeroed one */

/* What both hold now goes to the device; waits for it. */
bool device_cache_fill(device_cache *to, const cache *from, const sift *policy, failure *why);

attention device_cache_attention(device_cache *with);

#endif
