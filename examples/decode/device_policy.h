/* A policy on a CUDA device, and a decode step's calls there around whatever holds the cache. */
#ifndef DECODE_DEVICE_POLICY_H
#define DECODE_DEVICE_POLICY_H

#include "device_arenas.h"
#include "sift.h"

typedef struct device_policy {
  const gpu *gpu;
  kvsift_policy_config config;
  uint32_t needs; /* KVSIFT_NEEDS_* */
  kvsift_cuda_policy *policy;
  kvsift_cuda_arenas arenas;
  float *query, *out; /* one step's */
  kvsift_observation observation;
} device_policy;

/* As `like` is configured. Whatever it answers, release is owed. */
bool device_policy_create(device_policy *out, const gpu *on, const sift *like, failure *why);
void device_policy_release(device_policy *with); /* also a zeroed one */

/* The state of `from` goes to the device; waits for all that is in the stream. */
bool device_policy_upload(device_policy *to, const sift *from, failure *why);

/* A layer's choice: the new token's rows, which lie on the device, and the query's. `chosen` may be
 * null. */
bool device_policy_choose(device_policy *with, const attention_input *in, const kvsift_view *keys,
                          const kvsift_view *values, kvsift_cuda_selection *chosen, failure *why);

/* The attention to what was chosen; its output comes back, and the policy learns from it. */
bool device_policy_attend(device_policy *with, const attention_input *in, const kvsift_cache *rows,
                          float *out, failure *why);

/* What the next token will choose, for methods that need no query for it; after attend. */
bool device_policy_look_ahead(device_policy *with, const attention_input *in,
                              kvsift_cuda_selection *ahead, failure *why);

bool device_policy_advance(device_policy *with, uint32_t tokens, failure *why);

#endif
