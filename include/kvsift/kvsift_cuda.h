/* kvsift on a CUDA device: policies whose state lies in device memory, and the same verbs with device pointers.
 *
 *     kvsift_cuda_policy_sizes -> three arenas -> kvsift_cuda_policy_create
 *     decode, each layer:  kvsift_cuda_observe_keys, kvsift_cuda_select_blocks, kvsift_cuda_attend,
 *                          kvsift_cuda_observe_attention
 *             each step:   kvsift_cuda_advance(policy, 1)
 *
 * The functions exist in every build. Where the library was built without CUDA (kvsift_build_info.cuda is 0), or where there
 * is no driver, no device or no context, kvsift_cuda_policy_create answers KVSIFT_NO_DEVICE.
 *
 * Streams. Every call that works on the device takes the caller's stream (a CUstream or cudaStream_t; null is the default
 * stream), puts kernels and copies into it and returns: nothing is waited for, nothing is allocated, no stream or event is
 * made. Calls of one policy must reach the device in the order in which they were made: use one stream, or order streams
 * by events. The context that is current at create must be current at every later call.
 *
 * Results. Exact forms give the very bits of the CPU's functions of the same names: the same blocks, the same outputs, the
 * same state (kvsift_cuda_download into a CPU policy and compare). All of what this header offers today is exact.
 *
 * Graphs. What a call puts into its stream can be captured. Where `tokens` is 0 the kernels read the cache length from the
 * policy's own counters on the device ("one more than the policy's"), and first_token is KVSIFT_CUDA_NEXT: a captured
 * step, kvsift_cuda_advance included, can then be replayed while the cache grows. Buffers (queries, keys, the cache's
 * block table, outputs) are those of the capture: write new contents to the same places. After n replays call
 * kvsift_cuda_replayed(policy, n), which puts nothing into a stream, before any call that names a length.
 *
 * Errors. A status tells of arguments and of the driver; the driver's answers become KVSIFT_DEVICE with the call's name
 * and the driver's number in the sentence. What the device itself finds (NaN or infinity in a query, key or value, a
 * negative entry of a block table, more tokens than max_tokens) is left in pinned memory and answered by the next call
 * that is made after it happened: NOT_FINITE, INVALID_ARGUMENT or CAPACITY. After such an answer, and after any
 * KVSIFT_DEVICE, the policy is lost: its state may be of a half-done step, every call but reset, upload and destroy
 * answers the same status again.
 *
 * Threads. A policy belongs to one thread at a time; different policies share nothing. */
#ifndef KVSIFT_KVSIFT_CUDA_H
#define KVSIFT_KVSIFT_CUDA_H

#include <kvsift/kvsift.h>

#ifdef __cplusplus
extern "C" {
#endif
#ifdef __GNUC__
#pragma GCC visibility push(default)
#endif

#define KVSIFT_CUDA_NEXT UINT32_MAX     /* first_token: whatever follows on from the keys seen */
#define KVSIFT_CUDA_ALIGNMENT 256u      /* bytes; of the device arena and of the pinned one, the host's is KVSIFT_ARENA_ALIGNMENT */

typedef struct kvsift_cuda_policy kvsift_cuda_policy;

/* Bytes of the three arenas. */
typedef struct kvsift_cuda_sizes {
  uint32_t struct_size;
  uint32_t reserved;
  uint64_t device;              /* device memory (cudaMalloc) */
  uint64_t pinned;              /* pinned host memory that the device can write (cudaHostAlloc, mapped) */
  uint64_t host;                /* plain host memory */
} kvsift_cuda_sizes;

/* The arenas. They are the caller's, must outlive the policy, and need not be zero. */
typedef struct kvsift_cuda_arenas {
  uint32_t struct_size;
  uint32_t reserved;
  void *device;
  uint64_t device_bytes;
  void *pinned;
  uint64_t pinned_bytes;
  void *host;
  uint64_t host_bytes;
} kvsift_cuda_arenas;

/* What a step was found to be; in device memory, one for each KV head. */
typedef struct kvsift_cuda_step {
  uint32_t tokens;              /* cache length it was made for */
  uint32_t everything;          /* as kvsift_selection.everything, */
  uint32_t calibration;         /*   .calibration */
  uint32_t tail;                /*   and .tail */
} kvsift_cuda_step;

/* What a step attends to. All pointers are to device memory and hold their contents once the stream has come that far, until
 * the next select. `lists` is as the CPU's selection; its tokens, everything and calibration are what the host knows when
 * the call is made, and 0 where the length was left to the device: then `steps` has them. */
typedef struct kvsift_cuda_selection {
  uint32_t struct_size;
  uint32_t reserved;
  kvsift_selection lists;
  const kvsift_cuda_step *steps; /* [KV heads] */
} kvsift_cuda_selection;

/* ---- life cycle ---- */

/* Exact sizes for `config`. Needs no device. Any status a bad config gets; UNSUPPORTED where this configuration does not run
 * on the device: method balance, target_mass, verify_blocks, and the balanced tail. */
kvsift_status kvsift_cuda_policy_sizes(const kvsift_policy_config *config, kvsift_cuda_sizes *sizes);

/* Opens the driver (libcuda.so.1), loads all kernels into the current context, and puts the clearing of the device arena
 * into `stream`. NO_DEVICE, DEVICE, ARENA_TOO_SMALL and MISALIGNED naming the arena, or what sizes answers; the sentence
 * goes to config->error. On failure *policy is null and the arenas may be used again. This call allocates (the kernels'
 * code, by the driver) and may wait for the device; no later one does. Not to be captured. */
kvsift_status kvsift_cuda_policy_create(const kvsift_policy_config *config, const kvsift_cuda_arenas *arenas, void *stream,
                                        kvsift_cuda_policy **policy);

/* Back to the state after create; a lost policy is no longer lost. The stream's earlier work must be done. */
kvsift_status kvsift_cuda_policy_reset(kvsift_cuda_policy *policy, void *stream);

/* Unloads the kernels and marks the handle dead. The device must be done with the policy's work. */
kvsift_status kvsift_cuda_policy_destroy(kvsift_cuda_policy *policy);

/* As kvsift_policy_get_info; arena_bytes are those of the device. What the host knows: replays count once it was told. */
kvsift_status kvsift_cuda_policy_get_info(const kvsift_cuda_policy *policy, kvsift_policy_info *info);

/* ---- a decode step ---- */

/* As kvsift_observe_keys; the views' data and scales are device pointers, indexed from 0. first_token KVSIFT_CUDA_NEXT: the
 * tokens follow on from those seen, and the host need not know how many those are. */
kvsift_status kvsift_cuda_observe_keys(kvsift_cuda_policy *policy, uint32_t layer, const kvsift_query *heads,
                                       uint32_t first_token, uint32_t tokens, const kvsift_view *keys,
                                       const kvsift_view *values, void *stream);

/* As kvsift_select_blocks. query->view is in device memory, [query heads] rows of head_dim. query->tokens 0: one more than
 * the policy's, read on the device. The selection may be null: kvsift_cuda_attend needs none. */
kvsift_status kvsift_cuda_select_blocks(kvsift_cuda_policy *policy, uint32_t layer, const kvsift_query *query,
                                        kvsift_cuda_selection *selection, void *stream);

/* As kvsift_attend, over what the last kvsift_cuda_select_blocks of these heads chose, which must have been for this layer
 * and length. Cache, query, out ([query heads][head_dim] float32) and the observation's buffers are device memory;
 * cache->tokens may be 0 where query->tokens is. Rows whose addresses and strides are multiples of 16 bytes are read 16
 * bytes at a time, others element by element. The observation may be null; its host fields tokens and full are set where
 * the host knows them, else to 0. */
kvsift_status kvsift_cuda_attend(kvsift_cuda_policy *policy, uint32_t layer, const kvsift_query *query,
                                 const kvsift_cache *cache, float *out, kvsift_observation *observation, void *stream);

/* As kvsift_attend_tail: out [query heads][head_dim] and log_sum_exp [query heads], device memory. */
kvsift_status kvsift_cuda_attend_tail(kvsift_cuda_policy *policy, uint32_t layer, const kvsift_query *query, float *out,
                                      float *log_sum_exp, void *stream);

/* As kvsift_observe_attention; the observation's pointers are device memory, and what they hold is checked there. With tokens
 * 0 the length is one more than the policy's, and `full` is what the last selection's step was. Rows are taken for a decode
 * step's where the last selection was for the same length, else for a prompt's. */
kvsift_status kvsift_cuda_observe_attention(kvsift_cuda_policy *policy, uint32_t layer, const kvsift_query *heads,
                                            const kvsift_observation *observation, void *stream);

/* As kvsift_predict_next; may be put into another stream than other layers' calls, ordered by the caller's events. */
kvsift_status kvsift_cuda_predict_next(kvsift_cuda_policy *policy, uint32_t layer, const kvsift_query *heads, void *stream);

/* As kvsift_advance. */
kvsift_status kvsift_cuda_advance(kvsift_cuda_policy *policy, uint32_t tokens, void *stream);

/* A captured step that ended in kvsift_cuda_advance(policy, 1) has been replayed `steps` times since. The calls made under
 * the capture moved the host's counters as if they had run: `captured` 1 takes that back, once for each capture. */
kvsift_status kvsift_cuda_replayed(kvsift_cuda_policy *policy, uint32_t steps, uint32_t captured);

/* ---- prompt ---- */

/* The full attention rows of the prompt's last queries, for methods that learn from them (kvsift_policy_info.prefill_rows);
 * others do nothing. The prompt's own attention is the engine's. query->rows queries end at query->tokens; both views
 * are device memory. Keys must have been written to the cache. */
kvsift_status kvsift_cuda_observe_prompt(kvsift_cuda_policy *policy, uint32_t layer, const kvsift_query *query,
                                         const kvsift_cache *cache, void *stream);

/* ---- copies ---- */

/* The state of a CPU policy of the same configuration onto the device, and back. The copies are done when the stream has come
 * that far; the CPU policy must not be used before (pageable memory may make the driver wait). Not to be captured.
 * CONFIG_MISMATCH where the configurations differ. upload: a lost policy is no longer lost. */
kvsift_status kvsift_cuda_upload(kvsift_cuda_policy *policy, const kvsift_policy *from, void *stream);
kvsift_status kvsift_cuda_download(const kvsift_cuda_policy *policy, kvsift_policy *to, void *stream);

/* An independent copy in arenas of the same sizes. */
kvsift_status kvsift_cuda_fork(const kvsift_cuda_policy *policy, const kvsift_cuda_arenas *arenas, void *stream,
                               kvsift_cuda_policy **copy);

/* "" where none; holds until the policy's next failure. */
const char *kvsift_cuda_last_error(const kvsift_cuda_policy *policy);

#ifdef __GNUC__
#pragma GCC visibility pop
#endif
#ifdef __cplusplus
}
#endif

#endif
