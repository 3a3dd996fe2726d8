/* A device policy driven over the same toy model as a session's CPU policy, answer by answer. */
#ifndef KVSIFT_TESTS_DEVICE_SESSION_H
#define KVSIFT_TESTS_DEVICE_SESSION_H

#include <kvsift/kvsift_cuda.h>

#include "session.h"

typedef struct device_rows {
  void *data, *scales;
} device_rows;

typedef struct device_session {
  const toy *toy;
  kvsift_policy_config config;
  kvsift_cuda_policy *policy;
  kvsift_cuda_arenas arenas;
  device_rows *queries, *keys, *values, *paged_keys, *paged_values; /* [layers] */
  void *table;
  uint32_t tokens, needs, block_stride;
  uint32_t checked;    /* layers of steps that were compared, */
  uint64_t missed;     /*   their missed blocks */
  uint64_t weighted;   /*   and coreset tokens that stood for more than themselves */
  float tolerance;     /* of outputs, of the largest. 0: their bits are compared, and observed attention is fed back; else
                          nothing is observed */
  uint64_t inexact;    /* outputs that are not the CPU's bits */
  kvsift_cuda_selection selection; /* of the last device_layer */
  float *out, *block_max, *block_mass, *log_sum_exp; /* device memory */
} device_session;

/* Null where the configuration does not run on the device. */
device_session *device_session_new(const kvsift_policy_config *config, const toy *t);
void device_session_free(device_session *d);
kvsift_cuda_arenas device_arenas(const kvsift_policy_config *config);
void device_arenas_free(kvsift_cuda_arenas *arenas);

/* What session_prompt does to a CPU policy, but for the attention's output. */
void device_prompt(device_session *d, uint32_t tokens);
/* A prompt chunk of both, each layer's output compared to the bit. */
void prompt_both(session *s, device_session *d, uint32_t tokens);

/* One layer of a step, put into the stream. `tokens` 0: in graph form, with queries and keys of the step `at`. */
void device_layer(device_session *d, uint32_t layer, uint32_t tokens, uint32_t at);
void device_advance(device_session *d, uint32_t tokens);

/* Steps of both, each answer compared to the bit. */
void run_both(session *s, device_session *d, uint32_t steps);

/* The device's state against the CPU policy's, byte for byte. */
void expect_same_state(const session *s, const device_session *d);

kvsift_view device_view(const device_session *d, toy_kind kind, uint32_t layer, uint32_t first);
kvsift_cache device_cache(const device_session *d, uint32_t layer, uint32_t tokens);

#endif
