/* kvsift: decides which blocks of a KV cache attention needs, token by token.
 *
 * The public surface is this header, and <kvsift/balance.h>, <kvsift/store.h> and <kvsift/kvsift_cuda.h>, which include it.
 *
 * One object, one arena. Ask for a size, hand over that much memory, create. After create no call allocates, blocks
 * on a lock or does I/O (the store aside, which has worker threads). Nothing is global but what was found out about the
 * processor.
 *
 *     kvsift_policy_config_init -> set geometry and budget -> kvsift_policy_arena_size -> kvsift_policy_create
 *     prompt, each layer:  kvsift_observe_keys, kvsift_prefill_attend        then kvsift_advance(policy, prompt tokens)
 *     decode, each layer:  kvsift_observe_keys, kvsift_select_blocks, kvsift_decode_attend
 *             each step:   kvsift_advance(policy, 1)
 *     with a kernel of your own, instead of kvsift_decode_attend: yours over the selection, kvsift_attend_tail and
 *             kvsift_merge_attention where there is a tail, kvsift_observe_attention where info.needs asks for it
 *
 * One policy is one sequence: as many policies as sequences in a batch. Query heads [h * g, (h + 1) * g) share KV head h,
 * with g = query_heads / kv_heads. Keys and values have the same head_dim. Tokens are only added at the end, and forgotten
 * from the end on (kvsift_truncate): to drop or shift others, make the policy anew. A prompt that comes after decoded tokens
 * is decoded tokens to methods that decide on the prompt (SnapKV, PyramidKV, uniform): they keep all of it.
 *
 * Threads. A handle belongs to one thread at a time; different handles share nothing but loaded weights, which are only read.
 * Functions that take a kvsift_query work on the heads it names: calls for disjoint ranges of KV heads of one layer may
 * overlap, so an engine splits a layer's select, attend and observe over its own threads with no lock. Calls for two layers
 * must not overlap, kvsift_predict_next apart: scratch and lists belong to a KV head, not to a layer. A barrier of the
 * caller's must lie between a layer's last overlapping call and the next layer's first, or a call without a range (advance,
 * truncate, stats ...).
 *
 * Numbers. The same input gives the same bits on every instruction set: one order of operations, fused multiply-add,
 * own exp. Ties go to the lower index.
 *
 * Structs. Set struct_size to sizeof before each call, of structs that a call fills too; larger than the library's is well,
 * smaller is INVALID_STRUCT_SIZE. Structs that others hold by value (kvsift_view, kvsift_cache, kvsift_balance_config) do not
 * grow.
 *
 * Errors. Every call returns a kvsift_status. A call that fails leaves the handle as it was; buffers that it was to fill may
 * hold a part. It leaves a sentence that names the argument and the value: in the policy (kvsift_last_error), or in the
 * kvsift_error that a config points to. Listed with a call is what it answers besides INVALID_ARGUMENT and
 * INVALID_STRUCT_SIZE, which all do: the first for a handle that is null or destroyed too. */
#ifndef KVSIFT_KVSIFT_H
#define KVSIFT_KVSIFT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#ifdef __GNUC__
#pragma GCC visibility push(default) /* a shared library made of the archive exports what is declared here */
#endif

#define KVSIFT_VERSION_MAJOR 0
#define KVSIFT_VERSION_MINOR 1
#define KVSIFT_VERSION_PATCH 0

#define KVSIFT_ARENA_ALIGNMENT 64u  /* bytes; what every arena must start at a multiple of */
#define KVSIFT_MAX_HEAD_DIM 256u
#define KVSIFT_MAX_GROUP 16u        /* query heads that share a KV head */
#define KVSIFT_MAX_LAYERS 1024u
#define KVSIFT_MAX_TOKENS (1u << 24)
#define KVSIFT_ERROR_BYTES 240u

/* Status codes: 0 is success, numbers are stable and never reused. */
typedef int32_t kvsift_status;
enum {
  KVSIFT_OK = 0,
  KVSIFT_INVALID_ARGUMENT = 1,   /* null, out of range, contradictory */
  KVSIFT_INVALID_STRUCT_SIZE = 2,
  KVSIFT_ARENA_TOO_SMALL = 3,    /* an arena, scratch, or a snapshot's buffer */
  KVSIFT_MISALIGNED = 4,
  KVSIFT_NOT_FINITE = 5,         /* NaN or infinity in a query, key, value, parameter or result; a row that is no softmax */
  KVSIFT_OUT_OF_ORDER = 6,       /* a call before the one it needs, or tokens that do not follow on */
  KVSIFT_CAPACITY = 7,           /* more tokens than max_tokens; store: more blocks at once than its slots */
  KVSIFT_ROLLBACK = 8,           /* truncate further back than rollback_tokens reach */
  KVSIFT_UNSUPPORTED = 9,        /* valid, but this method or build cannot do it */
  KVSIFT_CORRUPT = 20,           /* snapshot or weights: bad magic, size or checksum */
  KVSIFT_VERSION_MISMATCH = 21,
  KVSIFT_CONFIG_MISMATCH = 22,   /* snapshot of another configuration */
  KVSIFT_IO = 40,                /* store: a read or write failed; the sentence names file and offset */
  KVSIFT_NO_DEVICE = 60,
  KVSIFT_DEVICE = 61
};

typedef struct kvsift_error {
  kvsift_status status;
  char message[KVSIFT_ERROR_BYTES]; /* zero-terminated */
} kvsift_error;

/* Element types of views. */
typedef uint32_t kvsift_type;
enum { KVSIFT_F32 = 0, KVSIFT_F16 = 1, KVSIFT_BF16 = 2, KVSIFT_I8 = 3 };

/* Rows of head_dim contiguous elements, one for each token and head, read where they lie (a cache whose tokens lie anywhere
 * is one with a block table of pages of one token):
 *     data + page * page_stride + offset * token_stride + head * head_stride          (strides in bytes)
 * page and offset are token / page_tokens and token % page_tokens of the cache's block table, 0 and token without one.
 * I8 rows carry one float32 scale each, addressed likewise. Element addresses must be aligned to the element. */
typedef struct kvsift_view {
  const void *data;
  kvsift_type type;
  uint32_t reserved;            /* 0 */
  uint64_t token_stride;
  uint64_t head_stride;
  uint64_t page_stride;
  const float *scales;          /* I8 only, else null */
  uint64_t scale_token_stride;
  uint64_t scale_head_stride;
  uint64_t scale_page_stride;
} kvsift_view;

/* One layer's cache, owned by the caller, only read. Keys are after RoPE. */
typedef struct kvsift_cache {
  uint32_t struct_size;
  uint32_t tokens;              /* rows present, the new token's included */
  kvsift_view keys;
  kvsift_view values;
  const int32_t *block_table;   /* null: contiguous; else page number of each page_tokens tokens */
  uint32_t page_tokens;         /* tokens a page; a power of two */
  uint32_t block_table_stride;  /* entries from one KV head's table to the next; 0: one table for all heads */
} kvsift_cache;

/* The queries of one call, and the heads it works on. */
typedef struct kvsift_query {
  uint32_t struct_size;
  uint32_t tokens;              /* cache length that the (last) query sees, itself included */
  kvsift_view view;             /* head stride over query heads; token stride over the rows of a prefill */
  uint32_t first_kv_head;       /* the range of KV heads, with all their query heads; */
  uint32_t kv_heads;            /* 0: from first_kv_head to the last */
  uint32_t rows;                /* queries: 1 for a decode step; prefill: the last `rows` tokens; 0 means 1 */
  uint32_t reserved;            /* 0 */
} kvsift_query;

typedef struct kvsift_range {
  uint32_t begin, end;          /* tokens [begin, end) */
} kvsift_range;

/* What a step attends to. Filled by kvsift_select_blocks; the lists belong to the policy and hold until the next
 * select of the same heads, in any layer. One list for each KV head, or for each query head (`per_query_head`).
 * `ranges` is exact: ascending, disjoint, not adjacent, sinks and local tokens included. `blocks` names the blocks that
 * hold at least one kept token, ascending, for engines with paged kernels and for prefetching. Where `everything` is
 * set each list is the one range [0, tokens), and `blocks` is empty but for a dense calibration, where it holds what
 * would have been chosen. */
typedef struct kvsift_selection {
  uint32_t struct_size;
  uint32_t tokens;              /* cache length it was made for */
  uint32_t lists;
  uint32_t per_query_head;      /* 0 or 1 */
  uint32_t everything;          /* 0 or 1: the budget or dense_tokens cover the context, a dense layer, or a dense
                                   calibration */
  uint32_t calibration;         /* 0 or 1: the method wants this step's full attention row */
  uint32_t block_tokens;
  uint32_t range_stride;        /* entries from one list of ranges to the next */
  uint32_t block_stride;
  uint32_t tail;                /* KVSIFT_TAIL_*: what stands for the tokens left out */
  const kvsift_range *ranges;   /* [lists][range_stride] */
  const uint32_t *range_counts; /* [lists] */
  const uint32_t *blocks;       /* [lists][block_stride] */
  const uint32_t *block_counts; /* [lists] */
  const uint32_t *coreset;      /* [KV heads][coreset_stride] tokens of a balanced tail, ascending; else null */
  const float *coreset_weights; /* [KV heads][coreset_stride] */
  const uint32_t *coreset_counts; /* [KV heads] */
  uint32_t coreset_stride;
  uint32_t missed_stride;
  const uint32_t *missed;       /* [lists][missed_stride] blocks of `blocks` that a late check added; else null */
  const uint32_t *missed_counts;  /* [lists] */
} kvsift_selection;

/* What a step's attention looked like. kvsift_attend fills it (the caller lends the buffers); an engine with its own
 * kernel fills either the block form or the row form.
 * Block form: for each query head and block the largest logit (after scaling) over the block's attended tokens,
 * minus infinity where none was attended, and the log-sum-exp over all attended tokens, tail included.
 * Row form: softmax rows over all tokens, exact zeros at tokens that were not attended. */
typedef struct kvsift_observation {
  uint32_t struct_size;
  uint32_t tokens;              /* cache length of the step */
  uint32_t full;                /* 0 or 1: everything was attended, so this is the full row. kvsift_attend sets it; with a
                                   kernel of your own it is yours to set */
  uint32_t block_stride;        /* entries from one query head to the next, at least ceil(tokens / block_tokens) */
  float *block_max;             /* [query heads][block_stride]; may be null for methods that ask for block_mass */
  float *block_mass;            /* [query heads][block_stride] share of the softmax on each block; may be null for methods
                                   that do not ask for it (kvsift_policy_info.needs, KVSIFT_NEEDS_MASS) */
  float *log_sum_exp;           /* [query heads] */
  const float *rows;            /* [query heads][row_stride]; null: block form */
  uint64_t row_stride;
} kvsift_observation;

/* Methods. Papers: StreamingLLM 2309.17453, H2O 2306.14048, SnapKV 2404.14469, PyramidKV 2406.02069, Quest 2406.10774,
 * page statistics (UNIQUE) 2605.27740, AttentionPredictor 2502.04077, BalanceKV 2502.07861. EMA and uniform sampling
 * are the controls that a learned or balanced method has to beat. */
typedef uint32_t kvsift_method;
enum {
  KVSIFT_METHOD_FULL = 0,
  KVSIFT_METHOD_STREAMING = 1,
  KVSIFT_METHOD_H2O = 2,
  KVSIFT_METHOD_SNAPKV = 3,
  KVSIFT_METHOD_PYRAMIDKV = 4,
  KVSIFT_METHOD_QUEST = 5,
  KVSIFT_METHOD_PAGE_STATS = 6,
  KVSIFT_METHOD_EMA = 7,
  KVSIFT_METHOD_UNIFORM = 8,
  KVSIFT_METHOD_ATTENTION_PREDICTOR = 9,
  KVSIFT_METHOD_BALANCE = 10,
  KVSIFT_METHOD_COUNT = 11
};

/* Grouping: one choice for each query head, or one for each KV head from its query heads' softmaxed scores. */
enum { KVSIFT_GROUP_QUERY_HEAD = 0, KVSIFT_GROUP_MEAN = 1, KVSIFT_GROUP_MAX = 2 };

/* Tail: what stands for pages (of page_tokens) of which no token is kept; tokens left out of a page that is kept in part count
 * nowhere. MOMENTS: one pseudo-token a page from the mean and variance of
 * its keys and the mean of its values, logit q.mean(k) * scale + log(1 + x/2) + log(tokens), x = scale^2 sum q_c^2 var_c.
 * Page statistics then rank pages by the largest logit they are likely to hold, q.mean(k) * scale + sqrt(2 x log(tokens)).
 * BALANCE: a weighted BalanceKV coreset. */
enum { KVSIFT_TAIL_NONE = 0, KVSIFT_TAIL_MOMENTS = 1, KVSIFT_TAIL_BALANCE = 2 };

enum { KVSIFT_POOL_AVG = 0, KVSIFT_POOL_MAX = 1 };

/* kvsift_policy_config.dense_tokens. Up to that length methods learn from full rows and evict nothing; those that evict by
 * score drop what is beyond the budget at the first longer step, and those that decide on the prompt decide then. Rows that
 * would be forgotten by that step are skipped: EMA begins with those that still weigh 2^-24 then (at ema_decay 0.8 the last
 * 75), the predictor with the last history_rows + predict_period - 1. */
#define KVSIFT_DENSE_OFF 0xffffffffu

/* SnapKV profiles that circulate, as window / kernel / pool. */
enum {
  KVSIFT_SNAPKV_32_5_AVG = 0,   /* the original code's init */
  KVSIFT_SNAPKV_32_7_MAX = 1,   /* the paper's configurations */
  KVSIFT_SNAPKV_64_5_AVG = 2,   /* kvpress, and the original class */
  KVSIFT_SNAPKV_8_7_MAX = 3     /* KVCache-Factory's runner */
};

typedef struct kvsift_predictor kvsift_predictor; /* loaded weights; null means the built-in ones */

/* Configuration. Call kvsift_policy_config_init, then set what differs. */
typedef struct kvsift_policy_config {
  uint32_t struct_size;
  kvsift_method method;
  /* geometry: no defaults, must be set */
  uint32_t layers;
  uint32_t query_heads;
  uint32_t kv_heads;            /* divides query_heads */
  uint32_t head_dim;            /* 1 .. KVSIFT_MAX_HEAD_DIM */
  uint32_t max_tokens;          /* cache capacity, prompt included */
  /* budget: tokens attended exactly, sinks and local included. The larger of budget_tokens and
   * budget_share * context holds; with target_mass that is the cap. SnapKV, PyramidKV and uniform: of the prompt, decoded tokens
   * come on top; PyramidKV gives its first layers up to twice as many. BalanceKV is bounded by its halvings instead. A tail comes
   * on top. */
  uint32_t block_tokens;        /* 1 .. 256; H2O, SnapKV, PyramidKV and uniform default to 1, the others to 16 */
  uint32_t page_tokens;         /* 1 .. 256, default 16: tokens a page of key statistics (Quest, page statistics, moments); Quest
                                   and page statistics choose whole pages and need block_tokens equal to it */
  uint32_t budget_tokens;
  float budget_share;           /* 0: unused; at most 1 */
  float target_mass;            /* 0: unused; else choose as few blocks as hold this estimated share of attention */
  uint32_t sink_tokens;
  uint32_t local_tokens;
  uint32_t dense_layers;        /* the first layers that attend to everything */
  uint32_t grouping;            /* KVSIFT_GROUP_* */
  uint32_t tail;                /* KVSIFT_TAIL_* */
  kvsift_type moments_type;     /* how page moments are kept: KVSIFT_I8 (the default), each row by its greatest magnitude:
                                   queries are rounded to int8 for that product, and weights of pages to 1/32767 of the
                                   largest of each 256; or KVSIFT_F16, in twice the bytes and slower, for keys some of
                                   whose channels lie ten times and more above the others */
  float softmax_scale;          /* 0: 1 / sqrt(head_dim) */
  uint32_t rollback_tokens;     /* how far kvsift_truncate reaches back, at most 4096; 1 and more: a step that was begun can be
                                   given up */
  uint32_t dense_tokens;        /* a cache of at most so many tokens is attended to whole, whatever the budget. 0: the longest
                                   for which a sparse step is slower than full attention, estimated from method, grouping, tail
                                   and budget (README: "Short contexts"); KVSIFT_DENSE_OFF: only what the budget covers */
  uint64_t seed;                /* uniform sampling and BalanceKV */
  /* SnapKV and PyramidKV */
  uint32_t window;              /* last prompt queries that vote; 1 .. budget_tokens - sink_tokens */
  uint32_t pool_kernel;         /* odd, at most 255 */
  uint32_t pooling;             /* KVSIFT_POOL_* */
  uint32_t pyramid_beta;        /* PyramidKV: at least 1; the last layer's budget is about 1 / pyramid_beta of the mean */
  float recent_share;           /* share of the budget that recent tokens have at least; 0.5 with H2O, else 0 */
  /* EMA and AttentionPredictor */
  float ema_decay;              /* weight of the past, 0 .. 1 */
  uint32_t calibration_period;  /* every M-th decode step sees the full row; 0: never */
  uint32_t calibration_dense;   /* 1: the output of that step is full attention too; 0: it stays sparse */
  uint32_t history_rows;        /* rows of the prompt's end to learn from; predictor 5 .. 256. Of a prompt in several calls
                                   EMA takes so many of each call; the predictor's history is that of one call */
  kvsift_type history_type;     /* KVSIFT_F32, or F16 / I8 as cheaper forms */
  float history_floor;          /* pooled shares below it enter the history as zero; 0: off */
  uint32_t predict_period;      /* predict every n-th step, 1 .. 256 */
  uint32_t predictor_arithmetic; /* KVSIFT_F32 exact; cheaper second convolution: KVSIFT_I8, or KVSIFT_BF16, whose inputs and
                                   weights are rounded to bf16 and whose sums are float32. BF16 is for tensor cores: CPUs
                                   give the same bits for it on every level, and gain nothing by it */
  uint32_t predictor_plain;     /* 1: recompute the whole network each step (the reference) */
  uint32_t verify_blocks;       /* AttentionPredictor, EMA: late check by page statistics adds up to so many, at most 4096; 0: off. Methods
                                   that evict cannot take blocks back */
  uint32_t balance_form;        /* BalanceKV, as method or tail: KVSIFT_BALANCE_* of <kvsift/balance.h>, 0 is the published
                                   practical form. GRADED compresses the prompt by what its last `window` queries attended
                                   to: kvsift_prefill_attend must be called, after the keys; what comes later, and a prompt
                                   that went through another kernel, is halved as in the practical form */
  const kvsift_predictor *predictor;
  /* BalanceKV, as method or tail */
  uint32_t balance_halvings;    /* T: 1/2^T of the prompt is kept */
  uint32_t balance_group;       /* tokens a group, 32 .. 512 */
  float balance_gamma;
  float balance_temperature;
  float balance_value_offset;
  uint32_t balance_streaming;   /* 1: compress decoded tokens too, by merge-and-reduce */
  uint32_t balance_guard;       /* 1: needle guard. Tokens unlike their group, and 25 to each side within it, are kept with
                                   weight 1: the most unlike first, at most as many as the halvings keep */
  uint32_t coreset_tokens;      /* tail = balance: size of the coreset, guarded tokens included */
  kvsift_error *error;          /* where arena_size and create leave their sentence; may be null */
  uint32_t tensor_attention;    /* 1: a device's decode attention over F16 and BF16 rows may run on tensor cores, near rather than
                                   exact (<kvsift/kvsift_cuda.h>). A CPU policy takes no notice. 0 by default */
} kvsift_policy_config;

typedef struct kvsift_policy kvsift_policy;

/* ---- life cycle ---- */

/* Sets the defaults of `method` as its paper has them; geometry and max_tokens are left 0 and must be set.
 * struct_size must be set by the caller before the call, to sizeof(kvsift_policy_config).
 * Returns INVALID_ARGUMENT (null, unknown method) or INVALID_STRUCT_SIZE. */
kvsift_status kvsift_policy_config_init(kvsift_policy_config *config, kvsift_method method);

/* Sets window, pool_kernel and pooling to a KVSIFT_SNAPKV_* profile. No other statuses. */
kvsift_status kvsift_policy_config_snapkv(kvsift_policy_config *config, uint32_t profile);

/* Sets the named profile `attention-predictor-fast`: the cheaper forms that pay, together. One choice per query head as
 * published, a floor of 0.003, history in 16 bits, int8 second convolution, a prediction every 3rd step, every 8th step a
 * calibration whose output stays sparse. Set `grouping` to KVSIFT_GROUP_MEAN afterwards for a choice per KV head: faster
 * still, a quarter of the state with groups of four, and recovery as sharing a choice has it (tests/bench/RESULTS.md).
 * Returns UNSUPPORTED for a config of another method. */
kvsift_status kvsift_policy_config_predictor_fast(kvsift_policy_config *config);

/* Bytes and alignment of the arena that `config` needs: exact. Returns NOT_FINITE (a parameter) or UNSUPPORTED (a combination
 * that this method or build cannot do). */
kvsift_status kvsift_policy_arena_size(const kvsift_policy_config *config, uint64_t *bytes, uint64_t *alignment);

/* Builds a policy in `arena` (at least the size asked for, aligned to KVSIFT_ARENA_ALIGNMENT, the caller's, must outlive
 * the policy; its contents need not be zero). Returns what kvsift_policy_arena_size does, ARENA_TOO_SMALL naming the buffer
 * that did not fit, or MISALIGNED. On failure *policy is null and the memory may be used again. */
kvsift_status kvsift_policy_create(const kvsift_policy_config *config, void *arena, uint64_t bytes,
                                   kvsift_policy **policy);

/* Back to the state after create. */
kvsift_status kvsift_policy_reset(kvsift_policy *policy);

/* Marks the handle dead, so that a later use is answered with INVALID_ARGUMENT. The memory is the caller's. */
kvsift_status kvsift_policy_destroy(kvsift_policy *policy);

/* What a policy asks of its engine, for this configuration. */
enum {
  KVSIFT_NEEDS_KEYS = 1,        /* kvsift_observe_keys for every token */
  KVSIFT_NEEDS_VALUES = 2,      /*   with values */
  KVSIFT_NEEDS_ATTENTION = 4,   /* kvsift_decode_attend or kvsift_observe_attention every step; a step without is not told */
  KVSIFT_NEEDS_MASS = 8,        /*   with block_mass (or rows) */
  KVSIFT_NEEDS_QUERY = 16       /* select reads the query */
};
typedef struct kvsift_policy_info {
  uint32_t struct_size;
  uint32_t needs;               /* KVSIFT_NEEDS_* */
  uint32_t prefill_rows;        /* full rows of the prompt's last queries the method learns from; UINT32_MAX: all */
  uint32_t evicts;              /* 1: tokens left out never come back, the engine may free them */
  uint32_t tokens;              /* tokens advanced over so far */
  uint32_t decode_steps;
  uint32_t max_ranges;          /* the most ranges, and blocks, that a list can hold */
  uint32_t max_blocks;
  uint64_t arena_bytes;
} kvsift_policy_info;
kvsift_status kvsift_policy_get_info(const kvsift_policy *policy, kvsift_policy_info *info);

/* ---- a decode step ---- */

/* Keys (and values, which may be null where not needed) of tokens [first_token, first_token + tokens) of `layer`, as views
 * indexed from 0, without a block table: of a paged cache a call for each page. Tokens must follow on from those seen.
 * `heads` names the heads; its view is not read and it may be null for all heads. Returns MISALIGNED, NOT_FINITE,
 * OUT_OF_ORDER or CAPACITY. */
kvsift_status kvsift_observe_keys(kvsift_policy *policy, uint32_t layer, const kvsift_query *heads,
                                  uint32_t first_token, uint32_t tokens, const kvsift_view *keys,
                                  const kvsift_view *values);

/* Chooses what the query attends to. query->tokens is the cache length with the new token. Returns MISALIGNED or NOT_FINITE
 * (the query), OUT_OF_ORDER (keys of this length are missing, or the length was advanced over) or CAPACITY. */
kvsift_status kvsift_select_blocks(kvsift_policy *policy, uint32_t layer, const kvsift_query *query,
                                   kvsift_selection *selection);

/* Attention of one decode query over a selection: softmax(q.k * scale) over the kept tokens, and the tail, times values. out:
 * [query heads][head_dim] float32, only the heads of `query` are written. `observation` may be null; its buffers are filled
 * for the heads of `query`. Of the policy only scratch of those heads is used. A calibration step whose output stays sparse
 * reads all keys for the observation. Returns MISALIGNED, NOT_FINITE (the query, the newest row, or what came out: rows that
 * went bad, or finite ones that overflow), OUT_OF_ORDER (the tail's keys are missing) or CAPACITY. */
kvsift_status kvsift_attend(const kvsift_policy *policy, uint32_t layer, const kvsift_query *query,
                            const kvsift_cache *cache, const kvsift_selection *selection, float *out,
                            kvsift_observation *observation);

/* The tail alone, for engines with their own kernel: its output and log-sum-exp for each query head, to be merged with the
 * kernel's (kvsift_merge_attention). A head without a tail gets zeros and minus infinity. Only a coreset reads `cache`, which
 * may be null otherwise. Statuses: those of kvsift_attend. */
kvsift_status kvsift_attend_tail(const kvsift_policy *policy, uint32_t layer, const kvsift_query *query,
                                 const kvsift_cache *cache, const kvsift_selection *selection, float *out,
                                 float *log_sum_exp);

/* Merges partial attention (b into a): a = (a e^la + b e^lb) / (e^la + e^lb), la = log(e^la + e^lb).
 * Returns NOT_FINITE where la or lb is NaN or plus infinity. */
kvsift_status kvsift_merge_attention(uint32_t head_dim, float *a, float *la, const float *b, float lb);

/* kvsift_attend, and the method learns from what it saw (as by kvsift_observe_attention) while that is still near: faster, and
 * no buffers to lend. For the policy's own selection of this step; on a calibration step the share of attention that the choice
 * would have kept is counted too (kvsift_stats). A call that fails has learnt nothing. Statuses: those of kvsift_attend, and
 * OUT_OF_ORDER without a selection for this length or, where the method learns, with a row of it observed before. */
kvsift_status kvsift_decode_attend(kvsift_policy *policy, uint32_t layer, const kvsift_query *query,
                                   const kvsift_cache *cache, const kvsift_selection *selection, float *out);

/* Feeds a step's attention back. `heads` names the range (null: all). During a prompt, an engine with its own prefill
 * kernel passes the full rows of the last info.prefill_rows queries, one a call, oldest first, before kvsift_advance. Returns
 * NOT_FINITE (a row that is no softmax), OUT_OF_ORDER (a row of this length was observed) or CAPACITY. */
kvsift_status kvsift_observe_attention(kvsift_policy *policy, uint32_t layer, const kvsift_query *heads,
                                       const kvsift_observation *observation);

/* Once a step, after the last layer: `tokens` were added to the cache. It ends a decode step where a selection for a longer
 * cache was made since the last advance, else a piece of the prompt. Returns OUT_OF_ORDER (a layer's keys are missing) or
 * CAPACITY. */
kvsift_status kvsift_advance(kvsift_policy *policy, uint32_t tokens);

/* AttentionPredictor: computes the next token's scores of `layer` now. May run as soon as that layer's attention was
 * observed, on another thread than other layers' calls; must have returned before the next select of that layer. Does
 * nothing where the next step will attend to everything. Other methods answer UNSUPPORTED. */
kvsift_status kvsift_predict_next(kvsift_policy *policy, uint32_t layer, const kvsift_query *heads);

/* ---- prompt ---- */

/* Exact causal attention of the last query->rows tokens over the cache, in tiles; out: [rows][query heads][head_dim].
 * On the way the method gets what it learns from (as by kvsift_observe_attention). A prompt may come in several calls;
 * each is followed by kvsift_advance once all layers are through. Returns MISALIGNED, NOT_FINITE, OUT_OF_ORDER or CAPACITY. */
kvsift_status kvsift_prefill_attend(kvsift_policy *policy, uint32_t layer, const kvsift_query *query,
                                    const kvsift_cache *cache, float *out);

/* ---- what engines do to a cache ---- */

/* Forgets tokens from `tokens` on. Exact within rollback_tokens; streaming and full go back any length; methods that learn
 * from the prompt's attention or decide on it (those with info.prefill_rows, uniform, GRADED coresets) only to the end of its
 * last piece. Else ROLLBACK. With the length that the policy has it gives up a step that was begun: its selection, and its
 * keys where rollback_tokens is not 0. */
kvsift_status kvsift_truncate(kvsift_policy *policy, uint32_t tokens);

/* An independent copy in another arena of the same size. Returns ARENA_TOO_SMALL or MISALIGNED. */
kvsift_status kvsift_fork(const kvsift_policy *policy, void *arena, uint64_t bytes, kvsift_policy **copy);

/* State to bytes and back; only what is in use is saved. `written` may be null. Load needs a policy of the same configuration
 * and weights, and checks magic, version, configuration and checksum before it changes anything. Save returns
 * ARENA_TOO_SMALL, load CORRUPT, VERSION_MISMATCH or CONFIG_MISMATCH, which names the field. */
kvsift_status kvsift_snapshot_size(const kvsift_policy *policy, uint64_t *bytes);
kvsift_status kvsift_snapshot_save(const kvsift_policy *policy, void *buffer, uint64_t bytes, uint64_t *written);
kvsift_status kvsift_snapshot_load(kvsift_policy *policy, const void *buffer, uint64_t bytes);

/* ---- predictor weights ---- */

kvsift_status kvsift_predictor_arena_size(uint64_t *bytes, uint64_t *alignment);
/* Loads weights (tools/convert_predictor.py writes them) into an arena that must outlive the policies using them. Returns
 * ARENA_TOO_SMALL, MISALIGNED, NOT_FINITE, CORRUPT or VERSION_MISMATCH. */
kvsift_status kvsift_predictor_load(const void *data, uint64_t size, void *arena, uint64_t bytes,
                                    kvsift_predictor **predictor, kvsift_error *error);

/* ---- figures ---- */

/* Counters since create or reset; ratios are the caller's to form. */
typedef struct kvsift_stats {
  uint32_t struct_size;
  uint32_t reserved;
  uint64_t selections;          /* lists made that left something out */
  uint64_t tokens_kept;         /* summed over those lists */
  uint64_t tokens_total;
  uint64_t tokens_read;         /* union over the query heads of a KV head: what must be read from the cache; layers that
                                   are always dense (dense_layers, method full) read all and are not counted */
  uint64_t calibrations;        /* lists with a full row */
  double recovery_sum;          /* attention mass those rows had on the blocks that were or would have been kept */
  uint64_t columns_computed;    /* AttentionPredictor: (row, column) pairs computed, */
  uint64_t columns_total;       /*   and those a plain evaluation would have computed */
  uint64_t state_bytes_touched; /* bytes of policy state read to select and for the tail */
  uint64_t missed_blocks;       /* late additions */
} kvsift_stats;
kvsift_status kvsift_get_stats(const kvsift_policy *policy, kvsift_stats *stats);

/* ---- text, versions ---- */

const char *kvsift_status_string(kvsift_status status);       /* static text */
const char *kvsift_last_error(const kvsift_policy *policy);   /* "" where none; holds until the policy's next failure */
const char *kvsift_method_name(kvsift_method method);         /* "page-stats"; null for an unknown one */
kvsift_status kvsift_method_from_name(const char *name, kvsift_method *method);
uint32_t kvsift_version(void);                                /* major << 16 | minor << 8 | patch */
uint64_t kvsift_arena_alignment(void);

typedef struct kvsift_build_info {
  uint32_t struct_size;
  uint32_t version;
  const char *levels;           /* instruction sets compiled in, "scalar avx2 avx512" */
  const char *level;            /* the one in use: the best the machine has, or what KVSIFT_CPU forces */
  uint32_t cuda;                /* 1: CUDA compiled in */
  uint32_t reserved;
} kvsift_build_info;
kvsift_status kvsift_get_build_info(kvsift_build_info *info);

#ifdef __GNUC__
#pragma GCC visibility pop
#endif
#ifdef __cplusplus
}
#endif

#endif
