/* kvsift on a CUDA device: policies whose state lies in device memory, and the same verbs with device pointers.
 *
 *     kvsift_cuda_policy_sizes -> three arenas -> kvsift_cuda_policy_create
 *     prompt, each layer:  kvsift_cuda_observe_keys, kvsift_cuda_prefill_attend
 *                          then kvsift_cuda_advance(policy, prompt tokens)
 *     decode, each layer:  kvsift_cuda_observe_keys, kvsift_cuda_select_blocks, kvsift_cuda_attend,
 *                          kvsift_cuda_observe_attention
 *             each step:   kvsift_cuda_advance(policy, 1)
 *
 * The functions exist in every build. Where the library was built without CUDA (kvsift_build_info.cuda is 0), or where there
 * is no driver, no device or no context, kvsift_cuda_policy_create answers KVSIFT_NO_DEVICE.
 *
 * Devices: of compute capability 8.0 and later. Those that give a block 163 KiB of shared memory or more (8.0, 8.7, 9.0, 10.0)
 * take every configuration. With 99 KiB (8.6, 8.9, 12.0) kvsift_cuda_policy_create answers UNSUPPORTED for more than twelve
 * query heads a KV head of more than 224 dimensions, and kvsift_cuda_prefill_attend for float32 rows of more than 160 dimensions
 * and 16-bit rows of more than 240. The sentence says how many bytes are needed, and what the device has.
 *
 * Streams. Every call that works on the device takes the caller's stream (a CUstream or cudaStream_t; null is the default
 * stream), puts kernels and copies into it and returns: nothing is waited for, nothing is allocated, no stream or event is
 * made. Calls of one policy must reach the device in the order in which they were made: use one stream, or order streams
 * by events. The context that is current at create must be current at every later call.
 *
 * Results. Exact forms give the very bits of the CPU's functions of the same names: the same blocks, the same outputs, the
 * same state (kvsift_cuda_download into a CPU policy and compare). All of what this header offers is exact but three forms,
 * which nothing takes unless they are asked for by name:
 *   config.tensor_attention: kvsift_cuda_attend runs on tensor cores where rows are F16 or BF16, head_dim is a multiple of 16
 *   and at most 128, a KV head has at most eight query heads, rows lie at multiples of 16 bytes, the tail is not a coreset and
 *   nothing is observed (observation null, or without blocks); elsewhere it is exact as ever. Queries and weights are split in
 *   two numbers of the rows' type, so that no more than 2^-21 of them is lost over F16 rows and 2^-16 over BF16 rows; products are
 *   added in float32, in the tensor cores' order. One device gives the same answers every time.
 *   KVSIFT_BALANCE_CUBLAS of BalanceKV, whose products are cuBLASLt's.
 *   AttentionPredictor with predictor_arithmetic KVSIFT_BF16 runs both convolutions on tensor cores. Sums have their order, and
 *   the first convolution's factors 16 bits. Scores are near those of the CPU's bf16 form (mostly within a millionth of the
 *   largest, now and then up to a thousandth), so blocks that are all but tied may be chosen otherwise; predictor_plain is
 *   as near. Of the state the histories are the same bits, the network's values and scores are not. One device gives the
 *   same answers every time.
 *
 * Graphs. What a call puts into its stream can be captured. Where `tokens` is 0 the kernels read the cache length from the
 * policy's own counters on the device ("one more than the policy's"), and first_token is KVSIFT_CUDA_NEXT: a captured
 * step, kvsift_cuda_advance included, can then be replayed while the cache grows. Buffers (queries, keys, the cache's
 * block table, outputs) are those of the capture: write new contents to the same places. After n replays call
 * kvsift_cuda_replayed(policy, n), which puts nothing into a stream, before any call that names a length.
 *
 * Errors. A status tells of arguments and of the driver; the driver's answers become KVSIFT_DEVICE with the call's name
 * and the driver's number in the sentence. What the device itself finds (NaN or infinity in a query, key or value, a
 * negative entry of a block table, more tokens than max_tokens, no state to go back to) is left in pinned memory and
 * answered by the next call that is made after it happened: NOT_FINITE, INVALID_ARGUMENT, CAPACITY or ROLLBACK. After such
 * an answer, and after any KVSIFT_DEVICE, the policy is lost: its state may be of a half-done step, every call but reset,
 * upload and destroy answers the same status again.
 *
 * Threads. A policy belongs to one thread at a time; different policies share nothing. */
#ifndef KVSIFT_KVSIFT_CUDA_H
#define KVSIFT_KVSIFT_CUDA_H

#include <kvsift/balance.h>
#include <kvsift/kvsift.h>
#include <kvsift/store.h>

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
 * on the device: of BalanceKV, as method or tail, balance_guard and every balance_form but practical and uniform. */
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
 * tokens follow on from those seen, and the host need not know how many those are. With method balance or the balanced tail
 * the tokens come into the KV heads' coresets, and groups are halved as they fill: most decode steps copy one row, a step that
 * fills a group is longer. Where first_token is given, the halvings of a prompt are done side by side. */
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
 * bytes at a time, others element by element. With page statistics and a moments tail the query must be the one that
 * select was given, whose tail logits are used: another is told later, as INVALID_ARGUMENT. The observation may be null; its
 * host fields tokens and full are set where the host knows them, else to 0. (kvsift_decode_attend has no twin here: rows that
 * stay on the device cost no way there and back.) */
kvsift_status kvsift_cuda_attend(kvsift_cuda_policy *policy, uint32_t layer, const kvsift_query *query,
                                 const kvsift_cache *cache, float *out, kvsift_observation *observation, void *stream);

/* Takes the blocks that the cache does not have, those with a negative entry in its block table, out of what the last
 * kvsift_cuda_select_blocks chose for this layer and length, in all KV heads: until the next select kvsift_cuda_attend
 * attends to the rest, and the tail stands for the others. For caches of kvsift_cuda_store, as resolve described them for
 * this selection. cache->page_tokens must be a multiple of the config's block_tokens. What was chosen does not change
 * otherwise: the method learns as from the whole choice. Where the choice was everything, no tail stands for what is
 * missing, and the observation's `full` is 0. A step that the observation wants the full row of (calibration with lists of
 * its own) needs the whole cache, and still meets the negative entries. `present`, which may be null, gets the ranges that
 * are left, in device memory, and no blocks. UNSUPPORTED with the balanced tail. OUT_OF_ORDER as attend. */
kvsift_status kvsift_cuda_keep_present(kvsift_cuda_policy *policy, uint32_t layer, const kvsift_query *query,
                                       const kvsift_cache *cache, kvsift_cuda_selection *present, void *stream);

/* As kvsift_attend_tail: out [query heads][head_dim] and log_sum_exp [query heads], device memory. UNSUPPORTED with the
 * balanced tail, whose rows lie in the cache. */
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

/* As kvsift_prefill_attend, to the same bits: the attention of the last query->rows tokens, and what the method learns from
 * them. Cache, query and out ([rows][query heads][head_dim] float32) are device memory. It is worked on in tiles of 32
 * queries of one KV head (members of the group count), 256 keys at a time; the arithmetic is float32 fused multiply-add in
 * the CPU's order, without tensor cores: prompts that are to be gone through at their speed are the engine's own, with
 * kvsift_cuda_observe_prompt. Rows whose addresses and strides are multiples of 16 bytes are read 16 bytes at a time. A
 * tile needs up to 134 KiB of shared memory (F16 cache, 128 dimensions: 68 KiB). Statuses as on the CPU, but for
 * NOT_FINITE, which the device finds; DEVICE also where a block cannot have that much. */
kvsift_status kvsift_cuda_prefill_attend(kvsift_cuda_policy *policy, uint32_t layer, const kvsift_query *query,
                                         const kvsift_cache *cache, float *out, void *stream);

/* The full attention rows of the prompt's last queries, for methods that learn from them (kvsift_policy_info.prefill_rows);
 * others do nothing: for engines whose prompt's attention is their own. query->rows queries end at query->tokens; both views
 * are device memory. Keys must have been written to the cache. */
kvsift_status kvsift_cuda_observe_prompt(kvsift_cuda_policy *policy, uint32_t layer, const kvsift_query *query,
                                         const kvsift_cache *cache, void *stream);

/* As kvsift_truncate. Replays must have been told of before. What the host can foresee gets ROLLBACK and changes nothing. */
kvsift_status kvsift_cuda_truncate(kvsift_cuda_policy *policy, uint32_t tokens, void *stream);

/* ---- copies ---- */

/* The state of a CPU policy of the same configuration onto the device, and back. The copies are done when the stream has come
 * that far; the CPU policy must not be used before (pageable memory may make the driver wait). Not to be captured.
 * CONFIG_MISMATCH where the configurations differ. upload: a lost policy is no longer lost. */
kvsift_status kvsift_cuda_upload(kvsift_cuda_policy *policy, const kvsift_policy *from, void *stream);
kvsift_status kvsift_cuda_download(const kvsift_cuda_policy *policy, kvsift_policy *to, void *stream);

/* An independent copy in arenas of the same sizes; what kvsift_cuda_balance_prepare made is not copied. */
kvsift_status kvsift_cuda_fork(const kvsift_cuda_policy *policy, const kvsift_cuda_arenas *arenas, void *stream,
                               kvsift_cuda_policy **copy);

/* ---- BalanceKV ---- */

#define KVSIFT_CUDA_BALANCE_HEADS 1024u

/* Bytes of device memory that compressing `heads` heads of `tokens` tokens needs. Any status a bad config gets; UNSUPPORTED for
 * forms other than PRACTICAL, UNIFORM and CUBLAS, for the guard, for given uniforms and for group_tokens 0. */
kvsift_status kvsift_cuda_balance_room(const kvsift_balance_config *config, uint32_t heads, uint32_t tokens, uint64_t *bytes);

/* KVSIFT_BALANCE_CUBLAS: the practical form with the products of its kernel matrices, <k_i - m, k_j - m> and <v_i, v_j>, by
 * cuBLASLt: keys and values packed as float32, multiplied on tensor cores as TF32 (11 significant bits of each
 * coordinate), added in float32 in an order of cuBLASLt's own. Everything else is as in PRACTICAL. The result is not
 * bit-exact: another device or another cuBLASLt may round a sum otherwise, and a sign whose uniform number lies that close
 * to its threshold then turns, and with it what follows in its group. Compare it by tolerance and statistics: a product is
 * within 2^-9 of the sum of its terms without their signs; halves are exact as ever, signs balance and the estimator errs as
 * PRACTICAL's do.
 *
 * Must be called before kvsift_cuda_balance_compress takes that form; with others it does nothing. Opens cuBLASLt
 * (libcublasLt.so.13 or .12, which then stays loaded; the environment's KVSIFT_CUBLASLT names another), has it choose how to
 * multiply, and puts a trial into the stream that overwrites `room`. What is made serves all calls with the same head_dim
 * rounded up to 8 and the same group_tokens rounded up to 64 (with fewer tokens than a group: those), whatever their
 * heads and tokens, until destroy or the next prepare, before which earlier work must be done. This call allocates and may
 * wait for the device; compress does neither and can be captured. Not to be captured itself. config, heads, tokens, room:
 * as for compress; room at a multiple of KVSIFT_CUDA_ALIGNMENT.
 * UNSUPPORTED: no cuBLASLt on this machine, or it cannot do this; DEVICE: with the name and number of its answer. A failure
 * leaves the policy, and what was prepared before, as they were. */
kvsift_status kvsift_cuda_balance_prepare(kvsift_cuda_policy *policy, const kvsift_balance_config *config, uint32_t heads,
                                          uint32_t tokens, void *room, uint64_t room_bytes, void *stream);

/* As kvsift_balance_compress for KV heads first_head .. first_head + heads, to the same tokens and weights: head h's lie in
 * index and weight from h * capacity on, how many in counts[h]. The cache's data, scales and block table, room (at a multiple of
 * KVSIFT_ARENA_ALIGNMENT, for CUBLAS of KVSIFT_CUDA_ALIGNMENT), index, weight and counts are device memory. `policy` lends its
 * kernels and the place where the device tells of NaN, infinity and bad tables, and is not touched otherwise. Sentences go to
 * config->error. OUT_OF_ORDER: form CUBLAS, and kvsift_cuda_balance_prepare was not called for such groups. */
kvsift_status kvsift_cuda_balance_compress(kvsift_cuda_policy *policy, const kvsift_balance_config *config,
                                           const kvsift_cache *cache, uint32_t first_head, uint32_t heads, kvsift_range range,
                                           void *room, uint64_t room_bytes, uint32_t *index, float *weight, uint32_t capacity,
                                           uint32_t *counts, void *stream);

/* "" where none; holds until the policy's next failure. */
const char *kvsift_cuda_last_error(const kvsift_cuda_policy *policy);

/* ---- a cache larger than device memory ----
 *
 * What kvsift_store is to a file and fast memory, this is to pinned host memory and device memory: the slow tier holds every
 * completed block, a fixed number of slots in device memory is what kvsift_cuda_attend reads. One store holds one sequence,
 * all layers and KV heads; a block is block_tokens tokens of one KV head in one layer.
 *
 *     each layer of a step:   kvsift_cuda_store_append(the new token)
 *                             kvsift_cuda_select_blocks -> kvsift_cuda_store_receive
 *                                                       -> kvsift_cuda_store_resolve -> kvsift_cuda_attend
 *                             kvsift_cuda_store_prefetch(what the next token is expected to need)
 *
 * Who waits. The host decides what goes where, so it must see the selection: receive copies a device policy's lists to pinned
 * memory and waits for them, a host round-trip for each selection; lists that the host has anyway (a CPU policy's) need
 * none. All other calls but flush and destroy put work into streams and return. Prefetches and write-backs go through a
 * stream of the store's own, made at create; events order it with the caller's: prefetch begins after what is in `stream`
 * when it is called, append and resolve wait on the device for the copies that they need. Nothing here can be captured.
 *
 * Late caps. With late_blocks resolve brings so many missing blocks of a layer in time, and those of the pinned tokens; the
 * others it takes out of the selection, so that a tail stands for them, and fetches them on the copy stream for the steps to
 * come. What a prefetch has on its way is waited for on the device and counts for nothing: the same calls leave out the same
 * blocks, whatever the timing. There is no late_microseconds, since the host waits for nothing here. A device policy attends
 * to what its own select chose, so it must be told, by kvsift_cuda_keep_present, once resolve has changed a selection:
 *
 *     kvsift_cuda_store_resolve(&lists) -> kvsift_cuda_keep_present(if lists.ranges is another than before)
 *                                       -> kvsift_cuda_attend
 *
 * Checksums. With `checksums` the device keeps the sum of each record that it writes back, in its own memory, and compares
 * each block that comes: one more kernel behind the transfers, none of the host's time. A block that is not what was written
 * gets a negative entry in the block table, and its slot is overwritten with NaN: no attention takes it for numbers. It is
 * left out by kvsift_cuda_keep_present; without it kvsift_cuda_attend's policy answers INVALID_ARGUMENT or NOT_FINITE.
 *
 * What the device finds (CORRUPT: such a block; NOT_FINITE: a row for I8 storage, below) lies in pinned memory, is answered by
 * the next call that is made after it happened, and loses the store, as KVSIFT_DEVICE does. flush sees all that the copy
 * stream has come upon; for what is in the caller's stream, wait for that first.
 *
 * Transfers. Blocks that are neighbours in slow memory and in their slots go as one, from run_blocks blocks on by the copy
 * engine; shorter ones by a kernel that reads pinned memory. Completed blocks are written back in order.
 *
 * Calls of one layer must reach the device in the order in which they were made: use one stream, or order streams by events.
 * A store belongs to one thread at a time. Any KVSIFT_DEVICE loses the store: every later call but destroy answers it
 * again. */

typedef struct kvsift_cuda_store kvsift_cuda_store;

/* Configuration. Call kvsift_cuda_store_config_init, then set what differs. */
typedef struct kvsift_cuda_store_config {
  uint32_t struct_size;
  /* geometry: no defaults, must be set; query_heads 0 means kv_heads */
  uint32_t layers;
  uint32_t query_heads;
  uint32_t kv_heads;
  uint32_t head_dim;
  uint32_t max_tokens;
  uint32_t block_tokens;        /* a power of two, 1 .. 256; 16 by default */
  kvsift_type type;             /* of the rows that append gets; F16 by default; I8: with scales */
  kvsift_type storage;          /* of the rows that are kept: the same, or I8 with a scale for each row, to the bits of
                                   kvsift_store */
  uint32_t fast_blocks;         /* a layer has fast_blocks * kv_heads slots, which its KV heads share; must be set */
  uint32_t resident_layers;     /* the first layers keep everything in device memory: those that attend to everything */
  uint32_t sink_tokens;         /* pinned in the fast tier: the first tokens, */
  uint32_t local_tokens;        /*   and the last; by default 16 and 64 */
  uint32_t late_blocks;         /* most blocks of a layer that a resolve fetches in time; NO_LIMIT by default */
  uint32_t run_blocks;          /* neighbours from so many on go by the copy engine; 8 by default, 0: never */
  uint32_t max_ranges;          /* ranges of a list that receive has room for, and missed blocks;
                                   kvsift_policy_info.max_ranges; 0: none. With a late cap also ranges and blocks of a
                                   list that resolve reduced; 0: enough for whole blocks */
  uint32_t checksums;           /* 1: of records, made and compared on the device; 0 by default */
  kvsift_error *error;          /* where sizes and create leave their sentence; may be null */
} kvsift_cuda_store_config;

/* Sets the defaults; struct_size must be set before the call. INVALID_ARGUMENT, INVALID_STRUCT_SIZE. */
kvsift_status kvsift_cuda_store_config_init(kvsift_cuda_store_config *config);

/* Exact sizes of the arenas. Needs no device. `pinned` is the slow tier: records [layer][KV head][block], each the block's
 * keys [block_tokens][head_dim], then its values, for I8 padding to 16 bytes and float32 scales of keys and values, padded to a
 * multiple of 64 bytes; room for lists lies behind them. Any status a bad config gets. */
kvsift_status kvsift_cuda_store_sizes(const kvsift_cuda_store_config *config, kvsift_cuda_sizes *sizes);

/* Makes an empty store. As kvsift_cuda_policy_create, and with the same statuses; also makes the copy stream and events. The
 * pinned arena must be mapped. On failure *store is null and the arenas may be used again. */
kvsift_status kvsift_cuda_store_create(const kvsift_cuda_store_config *config, const kvsift_cuda_arenas *arenas, void *stream,
                                       kvsift_cuda_store **store);

/* Waits for the copy stream, gives back stream, events and kernels, and marks the handle dead. The device must be done with the
 * caller's work on the store. */
kvsift_status kvsift_cuda_store_destroy(kvsift_cuda_store *store);

/* Adds tokens [first_token, first_token + tokens) of `layer`, all KV heads, as views in device memory indexed from 0; they
 * must follow on. Blocks that are complete are written back. A prompt larger than the fast tier passes through it. For I8
 * storage a row must be finite (where it comes as I8, its scale): one that is not is kept with a scale of NaN, so that what
 * attends to it is NaN too, and is answered later, as NOT_FINITE. OUT_OF_ORDER, CAPACITY (max_tokens), INVALID_ARGUMENT,
 * MISALIGNED, DEVICE. */
kvsift_status kvsift_cuda_store_append(kvsift_cuda_store *store, uint32_t layer, uint32_t first_token, uint32_t tokens,
                                       const kvsift_view *keys, const kvsift_view *values, void *stream);

/* A device policy's selection for the host: waits until `stream` has come so far. The lists of `to` lie in the pinned arena
 * and hold until the next receive; missed blocks come along where `from` has them, other blocks and a coreset do not.
 * INVALID_ARGUMENT: from->lists.tokens is 0, so the host does not know the length; missed without missed_counts.
 * CAPACITY: more lists than query heads, or a range_stride or missed_stride above max_ranges. */
kvsift_status kvsift_cuda_store_receive(kvsift_cuda_store *store, const kvsift_cuda_selection *from, void *stream,
                                        kvsift_selection *to);

/* Starts fetching the blocks of `selection` (lists in host memory) that are not in fast memory, on the copy stream, after what
 * is in `stream` now. `ticket` may be null. A hint: it keeps the resident ones in mind too, and leaves out what finds no
 * slot. Tokens past the end are ignored. Work put into `stream` later must not read this layer's slots before a resolve. */
kvsift_status kvsift_cuda_store_prefetch(kvsift_cuda_store *store, uint32_t layer, const kvsift_selection *selection,
                                         void *stream, kvsift_ticket *ticket);

/* What is put into `stream` from now on begins after the prefetch; a later one of the same layer may be waited for with it.
 * resolve does this by itself. */
kvsift_status kvsift_cuda_store_wait(kvsift_cuda_store *store, kvsift_ticket ticket, void *stream);
/* *done: 1 once the prefetch has ended. Does not wait. */
kvsift_status kvsift_cuda_store_poll(kvsift_cuda_store *store, kvsift_ticket ticket, uint32_t *done);

/* Brings what is missing of `selection` (lists in host memory) into fast memory, in `stream`, and describes the layer's slots as
 * a paged cache for kvsift_cuda_attend: a table in device memory for each KV head, negative where a block is not resident.
 * The cache may be attended to with this selection, in `stream`, until the next append, prefetch, resolve or truncate of
 * the layer. cache->struct_size must be set. With a late cap, blocks beyond it are taken out of the selection: its lists then
 * belong to the store, in host memory, and hold until its next resolve, of any layer. OUT_OF_ORDER: the selection is for more
 * tokens than the layer has. CAPACITY: with the pinned tokens it has more blocks than the layer has slots, or a reduced list
 * more entries than max_ranges; what was fetched stays. UNSUPPORTED: a coreset (KVSIFT_TAIL_BALANCE), whose rows lie all over
 * the cache. */
kvsift_status kvsift_cuda_store_resolve(kvsift_cuda_store *store, uint32_t layer, kvsift_selection *selection,
                                        kvsift_cache *cache, void *stream);

/* Forgets tokens from `tokens` on, in every layer that has more. */
kvsift_status kvsift_cuda_store_truncate(kvsift_cuda_store *store, uint32_t tokens, void *stream);

/* Waits until all completed blocks are in slow memory. */
kvsift_status kvsift_cuda_store_flush(kvsift_cuda_store *store);

uint32_t kvsift_cuda_store_layer_tokens(const kvsift_cuda_store *store, uint32_t layer); /* 0 for a bad argument */

/* Counters since create, of what was put into streams, but for corrupt_records, which the device counts; those that have no
 * meaning here (waits, errors of reading, times) are 0.
 * stats->struct_size must be set. */
kvsift_status kvsift_cuda_store_get_stats(const kvsift_cuda_store *store, kvsift_store_stats *stats);

const char *kvsift_cuda_store_last_error(const kvsift_cuda_store *store); /* "" where none; holds until the next failure */

#ifdef __GNUC__
#pragma GCC visibility pop
#endif
#ifdef __cplusplus
}
#endif

#endif
