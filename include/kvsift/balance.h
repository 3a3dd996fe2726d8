/* kvsift, BalanceKV (2502.07861): a weighted subset of a cache that stands for all of it, chosen without the queries.
 *
 * Once:        kvsift_balance_config_init -> kvsift_balance_scratch_size -> kvsift_balance_compress, one KV head a call
 * As a stream: kvsift_balance_stream_config_init -> _arena_size -> _create -> push, read, push, read ...
 *
 * A halving signs the tokens of a group one after another so that the signed sum of their kernel features stays short,
 * and keeps one sign. The kernel of two tokens, with m the mean key of the group:
 *     K(i, j) = exp(temperature * <k_i - m, k_j - m> * softmax_scale) * (<v_i, v_j> + value_offset)
 * Token i of the group gets +1 where its uniform number is below 1/2 - gamma * sum_{j<i} K(i, j) sign_j.
 *
 * Attention over the result: softmax(q.k * scale + log weight) over the kept tokens, times their values. Compressing works on
 * one head and keeps nothing between calls: heads may be spread over threads freely. A stream is one head's, and one thread's
 * at a time; to end or empty it, leave its arena or create it anew. The same input and seed give the same bits. Statuses are
 * listed as in kvsift.h, besides INVALID_ARGUMENT and INVALID_STRUCT_SIZE. */
#ifndef KVSIFT_BALANCE_H
#define KVSIFT_BALANCE_H

#include <kvsift/kvsift.h>

#ifdef __cplusplus
extern "C" {
#endif
#ifdef __GNUC__
#pragma GCC visibility push(default)
#endif

#define KVSIFT_BALANCE_MAX_HALVINGS 6u
#define KVSIFT_BALANCE_MIN_GROUP 32u
#define KVSIFT_BALANCE_MAX_GROUP 512u
#define KVSIFT_BALANCE_MAX_BATCH 4096u   /* tokens a batch of a stream */
#define KVSIFT_BALANCE_MAX_BUCKETS 16u

/* How signs are drawn, and what is kept of them. At rate 1/2 the paper has 0.70 of a uniform sample's error. On recorded
 * attention of two small models PRACTICAL came to 0.83 and 0.86, RELATIVE to 0.88, THEORY with the theorem's c to 1.02, and
 * GRADED, which alone needs the prompt's last queries, to 0.55 and 0.60 (tests/bench/RESULTS.md). */
enum {
  KVSIFT_BALANCE_PRACTICAL = 0,   /* the published code: gamma as it is, exact halves with weights 2 and 1, first sign +1 */
  KVSIFT_BALANCE_THEORY = 1,      /* the published theorem: gamma from c and R, the smaller class, failures counted */
  KVSIFT_BALANCE_UNIFORM = 2,     /* control: fair signs in the practical form (gamma 0, no kernel computed) */
  KVSIFT_BALANCE_PERMUTATION = 3, /* control: a random subset, one weight */
  KVSIFT_BALANCE_RELATIVE = 4,    /* practical, with gamma in units of 1 / R^2 and the first sign drawn too */
  KVSIFT_BALANCE_GRADED = 5,      /* ours: practical, but each token is halved as often as its importance allows */
  KVSIFT_BALANCE_CUBLAS = 6       /* practical, kernel matrices multiplied by cuBLASLt: kvsift_cuda_balance_compress only, and
                                     not the same bits as PRACTICAL (kvsift_cuda.h); the CPU answers UNSUPPORTED */
};

/* Weights of the result. */
enum {
  KVSIFT_BALANCE_NORMALISED = 0,  /* they sum to the number of tokens they stand for */
  KVSIFT_BALANCE_PUBLISHED = 1    /* 1, 2, 4 ... as halving leaves them; the published estimator divides by 2^T each */
};

typedef struct kvsift_balance_config {
  uint32_t struct_size;
  uint32_t head_dim;            /* must be set: 1 .. KVSIFT_MAX_HEAD_DIM */
  uint32_t form;                /* KVSIFT_BALANCE_* */
  uint32_t halvings;            /* T: floor(tokens / 2^T) are kept (theory, graded: at most); 1 .. 6 */
  uint32_t group_tokens;        /* 32 .. 512; 0: all tokens in one group */
  uint32_t weights;             /* KVSIFT_BALANCE_NORMALISED or _PUBLISHED */
  float gamma;                  /* at least 0; theory: 0 takes 1 / (2 c) */
  float temperature;            /* at least 0; theory: 1 */
  float value_offset;           /* added to <v_i, v_j>, so that one set serves numerator and denominator */
  float softmax_scale;          /* 0: 1 / sqrt(head_dim) */
  float failure_probability;    /* theory: delta of c = 30 log(tokens / delta); 0 < delta < 1 */
  uint32_t guard;               /* 1: needle guard. Tokens unlike their group (mean inner product with its keys <= 0), */
  uint32_t guard_margin;        /*    and this many to each side, are kept with weight 1 beside the halved rest */
  uint32_t layer;               /* with seed and head the key of the random numbers */
  uint64_t seed;
  const float *uniforms;        /* null, or numbers in [0, 1) to use instead: [halving][group][group_tokens] */
  uint64_t uniform_count;
  const float *importance;      /* graded: at least 0, by token of the cache (kvsift_balance_importance fills it) */
  kvsift_error *error;          /* where calls leave their sentence; may be null */
} kvsift_balance_config;

/* What calls of one config did; added to, never cleared, by each call. */
typedef struct kvsift_balance_stats {
  uint32_t struct_size;
  uint32_t reserved;
  uint64_t tokens;              /* that went into halvings */
  uint64_t groups;
  uint64_t failures;            /* theory: |sum| was beyond c R^2 (the walk goes on with the nearest probability) */
  uint64_t saturated;           /* kernel entries whose exponent was cut off: keys too long for this temperature */
  uint64_t guarded;             /* tokens the guard kept; streams: that it holds now */
  uint64_t dropped;             /* streams, theory: tokens in buckets too small to matter */
} kvsift_balance_stats;

/* Defaults of `form`; head_dim is left 0 and must be set. struct_size must be set before the call. */
kvsift_status kvsift_balance_config_init(kvsift_balance_config *config, uint32_t form);

/* Bytes of scratch to compress `tokens` tokens: exact. Returns NOT_FINITE (a parameter) or UNSUPPORTED (form CUBLAS). */
kvsift_status kvsift_balance_scratch_size(const kvsift_balance_config *config, uint32_t tokens, uint64_t *bytes);

/* Compresses tokens [range.begin, range.end) of KV head `head`. index and weight receive the kept tokens, ascending;
 * capacity is their length, at least floor(tokens / 2^T), with the guard at least tokens. scratch must start at a
 * multiple of KVSIFT_ARENA_ALIGNMENT. stats may be null.
 * Returns UNSUPPORTED (form CUBLAS; uniforms given to GRADED), NOT_FINITE naming the token, ARENA_TOO_SMALL or MISALIGNED;
 * INVALID_ARGUMENT for fewer than 2^T tokens too. Nothing is written on failure but the sentence and scratch. */
kvsift_status kvsift_balance_compress(const kvsift_balance_config *config, const kvsift_cache *cache, uint32_t head,
                                      kvsift_range range, void *scratch, uint64_t scratch_bytes, uint32_t *index,
                                      float *weight, uint32_t capacity, uint32_t *count, kvsift_balance_stats *stats);

/* Mean softmax share that each token had in the last prompt queries: what the graded form goes by. queries: `rows` query
 * rows ending at cache length `tokens`, heads from first_kv_head * group on; `group` query heads share the KV head
 * first_kv_head (kv_heads is not read). row and importance: [queries->tokens]; row is scratch. Tokens of importance x get
 * about log2(1 / sqrt(x)) halvings, up to a constant that makes the count right; the most important are kept as they are.
 * Returns MISALIGNED or NOT_FINITE (a row, the scale, or a share that came out). */
kvsift_status kvsift_balance_importance(uint32_t head_dim, float scale, const kvsift_query *queries, uint32_t group,
                                        const kvsift_cache *cache, float *row, float *importance,
                                        kvsift_error *error);

/* A weighted set of tokens (or of a stream's rows). */
typedef struct kvsift_weighted {
  const uint32_t *index;
  const float *weight;
  uint32_t count;
  uint32_t reserved;
} kvsift_weighted;

/* sum_N w e^(q.k scale) v / sum_D w e^(q.k scale) for one query of `head_dim` float32 over sets N and D of one cache and
 * KV head; null for D means N. With D other than N the result is what the theory and the published code compute; tokens
 * kept exactly go into both with weight 1. scale 0 means 1 / sqrt(head_dim).
 * Returns MISALIGNED or NOT_FINITE (the query, the scale, or what came out). */
kvsift_status kvsift_balance_attend(uint32_t head_dim, float scale, const float *query, const kvsift_cache *cache,
                                    uint32_t head, const kvsift_weighted *numerator,
                                    const kvsift_weighted *denominator, float *out, kvsift_error *error);

/* ---- stream: merge and reduce ----
 *
 * Tokens gather in a batch. A full batch is halved and goes up a level; a level that holds more than half a batch after
 * that is halved and goes up in turn. Rows are copied into the arena, whose size is known at create and enough however many
 * tokens are pushed, up to max_tokens; a tree has batch * (1 + levels / 2) rows at most, rollback as much again, and the
 * guard's are beside them. THEORY has no guard.
 * What is pushed in one call or in many gives the same bits. */
typedef struct kvsift_balance_stream kvsift_balance_stream;

typedef struct kvsift_balance_stream_config {
  uint32_t struct_size;
  uint32_t batch_tokens;        /* even, 32 .. 4096 */
  uint32_t levels;              /* 0: as many as max_tokens needs, so memory grows with its logarithm only; else tokens
                                   stay at this level: 1 / 2^levels of them are kept */
  uint32_t max_tokens;
  uint32_t rollback_batches;    /* truncate reaches back over this many full batches; at most 8 */
  uint32_t buckets;             /* theory: trees for the numerator, one for each power of two of |v|: the largest so many */
  kvsift_type row_type;         /* KVSIFT_F32, F16 or BF16: how rows are kept */
  uint32_t head;                /* key of the random numbers, with seed and layer of `balance` */
  kvsift_balance_config balance; /* form, gamma, guard ...; halvings, group_tokens, uniforms and importance are not used */
  uint32_t guard_tokens;        /* with balance.guard: the most tokens it holds; 0: a batch. Of all that came it holds those
                                   most unlike their batch, and neighbours; what is crowded out is halved like any other */
  uint32_t reserved;            /* 0 */
} kvsift_balance_stream_config;

/* Defaults for a form: PRACTICAL, RELATIVE and UNIFORM keep one tree, THEORY buckets and a tree for the denominator;
 * PERMUTATION, GRADED and CUBLAS have no stream.
 * struct_size of the stream config must be set; balance.head_dim must be set afterwards. */
kvsift_status kvsift_balance_stream_config_init(kvsift_balance_stream_config *config, uint32_t form);

/* Returns NOT_FINITE or UNSUPPORTED (a form without a stream); create also ARENA_TOO_SMALL or MISALIGNED. */
kvsift_status kvsift_balance_stream_arena_size(const kvsift_balance_stream_config *config, uint64_t *bytes);
kvsift_status kvsift_balance_stream_create(const kvsift_balance_stream_config *config, void *arena, uint64_t bytes,
                                           kvsift_balance_stream **stream);

/* Appends `tokens` tokens of head `head` of the views (which are indexed from 0). Returns CAPACITY beyond max_tokens,
 * NOT_FINITE or MISALIGNED; then nothing was pushed. */
kvsift_status kvsift_balance_stream_push(kvsift_balance_stream *stream, const kvsift_view *keys,
                                         const kvsift_view *values, uint32_t head, uint32_t tokens);

/* The weighted cache now. Indices are rows of `cache`, which lies in the stream's arena and has one head. Everything holds
 * until the next push, truncate, read or load. */
typedef struct kvsift_balance_stream_view {
  uint32_t struct_size;
  uint32_t reserved;
  kvsift_cache cache;
  kvsift_weighted numerator;
  kvsift_weighted denominator;  /* other than the numerator in the theory form only */
  const uint32_t *tokens;       /* [rows]: which token each row of the cache holds */
} kvsift_balance_stream_view;
kvsift_status kvsift_balance_stream_read(kvsift_balance_stream *stream, kvsift_balance_stream_view *view);

/* Tokens pushed; rows in use now; the most rows there can ever be. Null pointers are skipped. */
kvsift_status kvsift_balance_stream_count(const kvsift_balance_stream *stream, uint32_t *tokens, uint32_t *rows,
                                          uint32_t *max_rows);

/* Forgets tokens from `tokens` on: exact back to the start of the oldest of the last rollback_batches full batches, else
 * ROLLBACK and nothing changes. */
kvsift_status kvsift_balance_stream_truncate(kvsift_balance_stream *stream, uint32_t tokens);

/* An independent copy in another arena of the same size. Returns ARENA_TOO_SMALL or MISALIGNED. */
kvsift_status kvsift_balance_stream_fork(const kvsift_balance_stream *stream, void *arena, uint64_t bytes,
                                         kvsift_balance_stream **copy);

/* State to bytes and back: only rows in use are saved; `written` may be null. Load checks magic, version, configuration and
 * checksum before it changes anything. Save returns ARENA_TOO_SMALL; load MISALIGNED (the buffer must begin at a multiple of
 * 8), CORRUPT, VERSION_MISMATCH or CONFIG_MISMATCH. */
kvsift_status kvsift_balance_stream_snapshot_size(const kvsift_balance_stream *stream, uint64_t *bytes);
kvsift_status kvsift_balance_stream_snapshot_save(const kvsift_balance_stream *stream, void *buffer, uint64_t bytes,
                                                  uint64_t *written);
kvsift_status kvsift_balance_stream_snapshot_load(kvsift_balance_stream *stream, const void *buffer, uint64_t bytes);

kvsift_status kvsift_balance_stream_stats(const kvsift_balance_stream *stream, kvsift_balance_stats *stats);
const char *kvsift_balance_stream_last_error(const kvsift_balance_stream *stream);

#ifdef __GNUC__
#pragma GCC visibility pop
#endif
#ifdef __cplusplus
}
#endif

#endif
