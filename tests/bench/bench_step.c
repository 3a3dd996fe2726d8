/* A whole decode step against full attention: select, attend, observe, at the geometry of Llama-3.1-8B (32 query heads,
 * 8 KV heads, head dimension 128, float16 cache).
 *
 *     bench_step [--quick] [--tokens 32768] [--budget 1024] [--threads 1] [--steps 16] [--method NAME] [--layout head|token]
 *                [--dense off|TOKENS] [--learn at-once|apart]
 *
 * Methods learn while they attend (kvsift_decode_attend), or apart, by kvsift_attend and kvsift_observe_attention.
 * The cache's rows lie head by head (a head's tokens follow each other) or token by token (a token's heads do).
 * Layers rotate so that no cache holds what a step reads. Full attention is measured again after each method, which is
 * compared with what it was before and after. Prints JSON: microseconds a layer, ratios within this run. */
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <kvsift/kvsift.h>

#include "peak.h"
#include "spin.h"

enum { QUERY_HEADS = 32, KV_HEADS = 8, DIM = 128, BLOCK = 16, MAX_THREADS = 8 };
static const size_t kTokenBytes = (size_t)KV_HEADS * DIM * 2;
static const double kRotated = 256e6; /* bytes of cache over all layers, beyond any last-level cache here */

typedef struct world {
  uint32_t tokens, layers, threads, dense_tokens;
  uint32_t steps; /* of one measurement */
  int by_token, apart;
  uint16_t *keys, *values; /* [layer][KV head][token][DIM], or by token: [layer][token][KV head][DIM] */
  float *queries;          /* [step][query head][DIM] */
} world;

typedef struct variant {
  const char *label;
  kvsift_method method;
  uint32_t tail, grouping, moments_type, fast;
  uint32_t single; /* blocks of one token, as the method's own default is */
} variant;

static const variant kVariants[] = {
    {"full", KVSIFT_METHOD_FULL, 0, 0, KVSIFT_I8, 0, 0},
    {"streaming", KVSIFT_METHOD_STREAMING, 0, 0, KVSIFT_I8, 0, 0},
    {"streaming, one list", KVSIFT_METHOD_STREAMING, 0, KVSIFT_GROUP_MEAN, KVSIFT_I8, 0, 0},
    {"h2o, blocks, per KV head", KVSIFT_METHOD_H2O, 0, KVSIFT_GROUP_MEAN, KVSIFT_I8, 0, 0},
    {"snapkv, per KV head", KVSIFT_METHOD_SNAPKV, 0, KVSIFT_GROUP_MEAN, KVSIFT_I8, 0, 0},
    {"uniform, per KV head", KVSIFT_METHOD_UNIFORM, 0, KVSIFT_GROUP_MEAN, KVSIFT_I8, 0, 0},
    {"h2o, tokens, per KV head", KVSIFT_METHOD_H2O, 0, KVSIFT_GROUP_MEAN, KVSIFT_I8, 0, 1},
    {"snapkv, tokens, per KV head", KVSIFT_METHOD_SNAPKV, 0, KVSIFT_GROUP_MEAN, KVSIFT_I8, 0, 1},
    {"snapkv, tokens, per query head", KVSIFT_METHOD_SNAPKV, 0, 0, KVSIFT_I8, 0, 1},
    {"snapkv, per query head", KVSIFT_METHOD_SNAPKV, 0, 0, KVSIFT_I8, 0, 0},
    {"snapkv + moments, per KV head", KVSIFT_METHOD_SNAPKV, 1, KVSIFT_GROUP_MEAN, KVSIFT_I8, 0, 0},
    {"balance", KVSIFT_METHOD_BALANCE, KVSIFT_TAIL_BALANCE, KVSIFT_GROUP_MEAN, KVSIFT_I8, 0, 0},
    {"ema, per KV head", KVSIFT_METHOD_EMA, 0, KVSIFT_GROUP_MEAN, KVSIFT_I8, 0, 0},
    {"ema, per query head", KVSIFT_METHOD_EMA, 0, 0, KVSIFT_I8, 0, 0},
    {"quest, per KV head", KVSIFT_METHOD_QUEST, 0, KVSIFT_GROUP_MEAN, KVSIFT_I8, 0, 0},
    {"quest, per query head", KVSIFT_METHOD_QUEST, 0, 0, KVSIFT_I8, 0, 0},
    {"page-stats, per KV head", KVSIFT_METHOD_PAGE_STATS, 0, KVSIFT_GROUP_MEAN, KVSIFT_I8, 0, 0},
    {"page-stats + moments, per KV head", KVSIFT_METHOD_PAGE_STATS, 1, KVSIFT_GROUP_MEAN, KVSIFT_I8, 0, 0},
    {"page-stats + float16 moments, per KV head", KVSIFT_METHOD_PAGE_STATS, 1, KVSIFT_GROUP_MEAN, KVSIFT_F16, 0, 0},
    {"page-stats + moments, per query head", KVSIFT_METHOD_PAGE_STATS, 1, 0, KVSIFT_I8, 0, 0},
    {"attention-predictor, per KV head", KVSIFT_METHOD_ATTENTION_PREDICTOR, 0, KVSIFT_GROUP_MEAN, KVSIFT_I8, 0, 0},
    {"attention-predictor, per query head", KVSIFT_METHOD_ATTENTION_PREDICTOR, 0, 0, KVSIFT_I8, 0, 0},
    {"attention-predictor-fast, per KV head", KVSIFT_METHOD_ATTENTION_PREDICTOR, 0, KVSIFT_GROUP_MEAN, KVSIFT_I8, 1, 0},
    {"attention-predictor-fast", KVSIFT_METHOD_ATTENTION_PREDICTOR, 0, 0, KVSIFT_I8, 1, 0},
};

typedef struct timing {
  double select, attend, observe, total; /* seconds a layer */
  uint64_t state_bytes;                  /* a layer */
  double touched;                        /* bytes of policy state read, a layer and step */
  double cache_read;                     /* bytes of cache read, a layer and step */
} timing;

static void check(kvsift_status status, const char *what, const kvsift_policy *policy) {
  if (status == KVSIFT_OK) return;
  fprintf(stderr, "%s: %s: %s\n", what, kvsift_status_string(status), kvsift_last_error(policy));
  exit(1);
}

/* Threads wait for each other: what counts is the clock on the wall, on a quiet machine. */
static double wall_seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Memory as an engine would take it for its cache: in huge pages where the system gives them. */
static void *take(size_t bytes) {
  const size_t huge = (size_t)2 << 20;
  bytes = (bytes + huge - 1) / huge * huge;
  void *memory = aligned_alloc(huge, bytes);
  if (memory == NULL) exit(fprintf(stderr, "%zu bytes cannot be had\n", bytes));
  madvise(memory, bytes, MADV_HUGEPAGE);
  return memory;
}

static uint16_t random_half(uint64_t *state) {
  *state = *state * 6364136223846793005u + 1442695040888963407u;
  const uint32_t bits = (uint32_t)(*state >> 33);
  /* Sign, an exponent around 1, any fraction: magnitudes 0.25 .. 2. */
  return (uint16_t)((bits & 0x8000u) | ((13u + (bits >> 16) % 3u) << 10) | (bits & 0x3ffu));
}

static void make_world(world *w, uint32_t tokens, uint32_t threads, uint32_t steps, int by_token) {
  const double layer_bytes = 2.0 * (double)kTokenBytes * tokens;
  w->tokens = tokens, w->threads = threads, w->steps = steps, w->by_token = by_token;
  w->layers = (uint32_t)ceil(kRotated / layer_bytes);
  const size_t elements = (size_t)w->layers * (tokens + steps) * KV_HEADS * DIM;
  w->keys = take(elements * 2), w->values = take(elements * 2);
  w->queries = malloc((size_t)steps * QUERY_HEADS * DIM * sizeof(float));
  uint64_t state = 1;
  for (size_t i = 0; i < elements; ++i) w->keys[i] = random_half(&state), w->values[i] = random_half(&state);
  for (size_t i = 0; i < (size_t)steps * QUERY_HEADS * DIM; ++i) {
    w->queries[i] = (float)(random_half(&state) % 2001) / 1000.0f - 1.0f;
  }
}

static void free_world(world *w) {
  free(w->keys), free(w->values), free(w->queries);
}

static kvsift_view rows_of(const world *w, const uint16_t *base, uint32_t layer, uint32_t token) {
  const size_t row = DIM * 2, length = w->tokens + w->steps;
  kvsift_view view = {.type = KVSIFT_F16, .token_stride = w->by_token ? kTokenBytes : row,
                      .head_stride = w->by_token ? row : length * row};
  view.data = (const char *)base + layer * length * kTokenBytes + token * view.token_stride;
  return view;
}

/* Peaked pooled rows for the prompt's last queries, for methods that learn from attention: in each KV head one block in 64
 * holds a share of 0.015 in every row, which is half of the mass at 32,768 tokens; the others hold next to nothing. */
static void feed_rows(const world *w, kvsift_policy *policy, uint32_t rows, uint32_t block) {
  const uint32_t blocks = (w->tokens + block - 1) / block;
  float *max = malloc((size_t)QUERY_HEADS * blocks * sizeof *max), *mass = malloc((size_t)QUERY_HEADS * blocks * sizeof *mass);
  float lse[QUERY_HEADS];
  uint64_t state = 7;
  for (uint32_t h = 0; h < QUERY_HEADS; ++h) lse[h] = 8.0f;
  if (rows > 64) rows = 64;
  for (uint32_t layer = 0; layer < w->layers; ++layer) {
    for (uint32_t r = 0; r < rows; ++r) {
      for (size_t i = 0; i < (size_t)QUERY_HEADS * blocks; ++i) {
        const uint32_t place = (uint32_t)(i % blocks), kv_head = (uint32_t)(i / blocks) / (QUERY_HEADS / KV_HEADS);
        const int peak = (place * 2654435761u + kv_head * 40503u) >> 26 == 0;
        max[i] = peak ? 3.8f : -2.0f - (float)(random_half(&state) & 0xfu);
        mass[i] = expf(max[i] - 8.0f);
      }
      kvsift_observation o = {.struct_size = sizeof o, .tokens = w->tokens - rows + r + 1, .full = 1, .block_stride = blocks,
                              .block_max = max, .block_mass = mass, .log_sum_exp = lse};
      check(kvsift_observe_attention(policy, layer, NULL, &o), "rows", policy);
    }
  }
  free(max), free(mass);
}

static kvsift_policy *make_policy(const world *w, const variant *v, uint32_t budget) {
  kvsift_error error = {0};
  kvsift_policy_config c = {.struct_size = sizeof c};
  kvsift_policy_config_init(&c, v->method);
  if (v->fast) kvsift_policy_config_predictor_fast(&c);
  c.layers = w->layers, c.query_heads = QUERY_HEADS, c.kv_heads = KV_HEADS, c.head_dim = DIM;
  c.max_tokens = w->tokens + w->steps, c.dense_layers = 0, c.block_tokens = v->single ? 1 : BLOCK, c.grouping = v->grouping;
  c.tail = v->tail, c.moments_type = v->moments_type, c.dense_tokens = w->dense_tokens, c.error = &error;
  if (v->method != KVSIFT_METHOD_FULL) c.budget_tokens = budget;
  uint64_t bytes = 0, alignment = 0;
  if (kvsift_policy_arena_size(&c, &bytes, &alignment) != KVSIFT_OK) {
    fprintf(stderr, "%s: %s\n", v->label, error.message);
    return NULL;
  }
  void *arena = take(bytes);
  kvsift_policy *policy = NULL;
  if (kvsift_policy_create(&c, arena, bytes, &policy) != KVSIFT_OK) {
    fprintf(stderr, "%s: %s\n", v->label, error.message);
    return NULL;
  }
  kvsift_policy_info info = {.struct_size = sizeof info};
  check(kvsift_policy_get_info(policy, &info), "info", policy);
  for (uint32_t layer = 0; layer < w->layers; ++layer) {
    const kvsift_view keys = rows_of(w, w->keys, layer, 0), values = rows_of(w, w->values, layer, 0);
    check(kvsift_observe_keys(policy, layer, NULL, 0, w->tokens, &keys, &values), "keys", policy);
  }
  if (info.prefill_rows > 0) feed_rows(w, policy, info.prefill_rows, c.block_tokens);
  check(kvsift_advance(policy, w->tokens), "advance", policy);
  /* The whole network runs once over a prompt's rows: that belongs to the prompt. */
  for (uint32_t layer = 0; layer < w->layers && v->method == KVSIFT_METHOD_ATTENTION_PREDICTOR; ++layer) {
    check(kvsift_predict_next(policy, layer, NULL), "predict", policy);
  }
  return policy;
}

/* An engine has just written the token's rows when it calls: they are near. */
static void touch_rows(const kvsift_view *rows, uint32_t first, uint32_t count) {
  for (uint32_t h = first; h < first + count; ++h) {
    volatile uint16_t *row = (volatile uint16_t *)((char *)(uintptr_t)rows->data + h * rows->head_stride);
    for (uint32_t i = 0; i < DIM; ++i) row[i] = row[i];
  }
}

typedef struct worker {
  const world *w;
  kvsift_policy *policy;
  spin_barrier *barrier;
  uint32_t index, rows_needed, mass_needed, block;
  float *out, *block_max, *block_mass, *lse;
  timing sum;
} worker;

static void *work(void *argument) {
  worker *me = argument;
  const world *w = me->w;
  kvsift_policy *policy = me->policy;
  const uint32_t share = KV_HEADS / w->threads, blocks = (w->tokens + w->steps + me->block - 1) / me->block;
  for (uint32_t step = 0; step < w->steps; ++step) {
    const uint32_t tokens = w->tokens + step + 1;
    for (uint32_t layer = 0; layer < w->layers; ++layer) {
      kvsift_query q = {.struct_size = sizeof q, .tokens = tokens, .rows = 1, .first_kv_head = me->index * share, .kv_heads = share};
      q.view = (kvsift_view){.data = w->queries + (size_t)step * QUERY_HEADS * DIM, .type = KVSIFT_F32, .head_stride = DIM * 4};
      const kvsift_view key = rows_of(w, w->keys, layer, tokens - 1), value = rows_of(w, w->values, layer, tokens - 1);
      kvsift_cache cache = {.struct_size = sizeof cache, .tokens = tokens, .keys = rows_of(w, w->keys, layer, 0),
                            .values = rows_of(w, w->values, layer, 0)};
      kvsift_selection s = {.struct_size = sizeof s};
      kvsift_observation o = {.struct_size = sizeof o, .block_stride = blocks, .log_sum_exp = me->lse,
                              .block_max = me->mass_needed ? NULL : me->block_max,
                              .block_mass = me->mass_needed ? me->block_mass : NULL};
      touch_rows(&key, me->index * share, share), touch_rows(&value, me->index * share, share);
      const double start = wall_seconds();
      check(kvsift_observe_keys(policy, layer, &q, tokens - 1, 1, &key, &value), "keys", policy);
      check(kvsift_select_blocks(policy, layer, &q, &s), "select", policy);
      const double selected = wall_seconds();
      if (w->apart) {
        check(kvsift_attend(policy, layer, &q, &cache, &s, me->out, me->rows_needed ? &o : NULL), "attend", policy);
      } else {
        check(kvsift_decode_attend(policy, layer, &q, &cache, &s, me->out), "attend", policy);
      }
      const double attended = wall_seconds();
      if (w->apart && me->rows_needed) check(kvsift_observe_attention(policy, layer, &q, &o), "observe", policy);
      const double observed = wall_seconds();
      spin_barrier_wait(me->barrier);
      me->sum.select += selected - start, me->sum.attend += attended - selected, me->sum.observe += observed - attended;
      me->sum.total += wall_seconds() - start;
    }
    if (me->index == 0) check(kvsift_advance(policy, 1), "advance", policy);
    spin_barrier_wait(me->barrier);
  }
  return NULL;
}

static int measure(const world *w, const variant *v, uint32_t budget, timing *out) {
  kvsift_policy *policy = make_policy(w, v, budget);
  if (policy == NULL) return 0;
  kvsift_policy_info info = {.struct_size = sizeof info};
  kvsift_get_stats(policy, &(kvsift_stats){.struct_size = sizeof(kvsift_stats)});
  check(kvsift_policy_get_info(policy, &info), "info", policy);
  const uint32_t block = v->single ? 1 : BLOCK, blocks = (w->tokens + w->steps + block - 1) / block;
  float *room = malloc(((size_t)QUERY_HEADS * DIM + 2 * (size_t)QUERY_HEADS * blocks + QUERY_HEADS) * sizeof(float));
  pthread_t threads[MAX_THREADS];
  worker workers[MAX_THREADS];
  spin_barrier barrier = {.threads = w->threads};
  for (uint32_t i = 0; i < w->threads; ++i) {
    workers[i] = (worker){.w = w, .policy = policy, .barrier = &barrier, .index = i, .block = block, .out = room,
                          .rows_needed = (info.needs & KVSIFT_NEEDS_ATTENTION) != 0,
                          .mass_needed = (info.needs & KVSIFT_NEEDS_MASS) != 0};
    workers[i].block_max = room + QUERY_HEADS * DIM;
    workers[i].block_mass = workers[i].block_max + (size_t)QUERY_HEADS * blocks;
    workers[i].lse = workers[i].block_mass + (size_t)QUERY_HEADS * blocks;
    if (i > 0) pthread_create(&threads[i], NULL, work, &workers[i]);
  }
  work(&workers[0]);
  for (uint32_t i = 1; i < w->threads; ++i) pthread_join(threads[i], NULL);
  kvsift_stats stats = {.struct_size = sizeof stats};
  check(kvsift_get_stats(policy, &stats), "stats", policy);
  const double calls = (double)w->steps * w->layers;
  *out = workers[0].sum;
  out->select /= calls, out->attend /= calls, out->observe /= calls, out->total /= calls;
  out->state_bytes = info.arena_bytes / w->layers;
  out->touched = (double)stats.state_bytes_touched / calls;
  out->cache_read = (v->method == KVSIFT_METHOD_FULL ? (double)w->tokens * KV_HEADS : (double)stats.tokens_read / calls) * DIM * 4;
  free(room), free(policy);
  return 1;
}

/* Bytes a second that `threads` cores read from memory together. */
typedef struct reader {
  const uint64_t *data;
  size_t words;
  uint64_t sum;
} reader;

static void *read_all(void *argument) {
  reader *r = argument;
  uint64_t sum[8] = {0};
  for (size_t i = 0; i + 8 <= r->words; i += 8) {
    for (int k = 0; k < 8; ++k) sum[k] += r->data[i + k];
  }
  for (int k = 0; k < 8; ++k) r->sum += sum[k];
  return NULL;
}

static double read_bandwidth(uint32_t threads) {
  const size_t bytes = (size_t)512 << 20;
  char *data = take(bytes);
  memset(data, 1, bytes);
  double best = 0;
  for (int run = 0; run < 5; ++run) {
    pthread_t ids[MAX_THREADS];
    reader readers[MAX_THREADS];
    const double start = wall_seconds();
    for (uint32_t i = 0; i < threads; ++i) {
      readers[i] = (reader){(const uint64_t *)(data + bytes / threads * i), bytes / threads / 8, 0};
      pthread_create(&ids[i], NULL, read_all, &readers[i]);
    }
    for (uint32_t i = 0; i < threads; ++i) pthread_join(ids[i], NULL);
    const double rate = (double)bytes / (wall_seconds() - start);
    if (rate > best) best = rate;
  }
  free(data);
  return best;
}

static int first_record = 1;

static void report(const world *w, const variant *v, uint32_t budget, const timing *t, double full) {
  printf("%s\n  {\"tokens\": %u, \"budget\": %u, \"threads\": %u, \"method\": \"%s\", \"select_us\": %.1f, \"attend_us\": %.1f, "
         "\"observe_us\": %.1f, \"total_us\": %.1f, \"times_faster_than_full\": %.2f, \"state_bytes\": %llu, "
         "\"state_bytes_touched\": %.0f, \"cache_bytes_read\": %.0f}",
         first_record ? "" : ",", w->tokens, budget, w->threads, v->label, t->select * 1e6, t->attend * 1e6, t->observe * 1e6,
         t->total * 1e6, full / t->total, (unsigned long long)t->state_bytes, t->touched, t->cache_read);
  fprintf(stderr, "%7u tokens, budget %4u, %u threads, %-40s select %8.1f attend %8.1f observe %7.1f us, %6.2f x full\n",
          w->tokens, budget, w->threads, v->label, t->select * 1e6, t->attend * 1e6, t->observe * 1e6, full / t->total);
  first_record = 0;
}

typedef struct options {
  uint32_t tokens, budget, threads, steps, dense_tokens;
  int by_token, apart;
  const char *only;
} options;

static void run(uint32_t tokens, uint32_t budget, uint32_t threads, const options *o, double bandwidth, double flops) {
  world w;
  const uint32_t steps = tokens >= 65536 ? 8 : tokens >= 16384 ? 16 : 32;
  make_world(&w, tokens, threads, o->steps > 0 ? o->steps : steps, o->by_token);
  timing full = {0};
  w.dense_tokens = o->dense_tokens, w.apart = o->apart;
  measure(&w, &kVariants[0], budget, &full);
  measure(&w, &kVariants[0], budget, &full);
  /* The cache grows while it is measured. */
  const double length = tokens + (w.steps + 1) / 2.0, bytes = length * (double)kTokenBytes * 2, work_done = length * QUERY_HEADS * DIM * 4;
  const double bound = fmax(bytes / bandwidth, work_done / (flops * threads));
  printf("%s\n  {\"tokens\": %u, \"threads\": %u, \"method\": \"full\", \"total_us\": %.1f, \"share_of_roofline\": %.3f}",
         first_record ? "" : ",", tokens, threads, full.total * 1e6, bound / full.attend);
  fprintf(stderr, "%7u tokens, %u threads, full: %.1f us, %.0f%% of the roofline\n", tokens, threads, full.total * 1e6,
          100 * bound / full.attend);
  first_record = 0;
  for (size_t i = 1; i < sizeof kVariants / sizeof kVariants[0]; ++i) {
    timing t = {0}, then = full;
    if (o->only != NULL && strstr(kVariants[i].label, o->only) == NULL) continue;
    const int done = measure(&w, &kVariants[i], budget, &t);
    measure(&w, &kVariants[0], budget, &full);
    if (done) report(&w, &kVariants[i], budget, &t, (then.total + full.total) / 2);
  }
  free_world(&w);
}

/* The given lengths, budgets and numbers of threads; all of them where none is given. */
static void run_all(const options *o, const double *bandwidth, double flops) {
  static const uint32_t kTokens[] = {1024, 4096, 8192, 32768, 131072};
  for (size_t i = 0; i < sizeof kTokens / sizeof kTokens[0]; ++i) {
    if (o->tokens != 0 && i > 0) continue;
    for (uint32_t b = 1024; b <= 2048; b *= 2) {
      if (o->budget != 0 && b > 1024) continue;
      for (uint32_t n = 1; n <= 2; ++n) {
        if (o->threads != 0 && n != o->threads) continue;
        run(o->tokens != 0 ? o->tokens : kTokens[i], o->budget != 0 ? o->budget : b, n, o, bandwidth[n - 1], flops);
      }
    }
  }
}

static const char kUsage[] =
    "bench_step [--quick] [--tokens N] [--budget N] [--threads 1|2] [--steps N] [--dense off|N] [--layout head|token]\n"
    "           [--learn at-once|apart] [--method PART-OF-A-NAME]\n"
    "A decode step of each method against full attention: JSON on stdout, progress on stderr. What is not given is all of it:\n"
    "lengths of 1,024 to 131,072 tokens, budgets of 1,024 and 2,048, one and two threads.";

int main(int argc, char **argv) {
  options o = {0};
  for (int i = 1; i < argc; ++i) {
    if (strcmp(argv[i], "--help") == 0) return puts(kUsage) < 0;
    if (strcmp(argv[i], "--quick") == 0) o.tokens = 32768, o.budget = 1024, o.threads = 1;
    if (i + 1 == argc) break;
    const char *value = argv[i + 1];
    if (strcmp(argv[i], "--tokens") == 0) o.tokens = (uint32_t)atoi(value);
    if (strcmp(argv[i], "--budget") == 0) o.budget = (uint32_t)atoi(value);
    if (strcmp(argv[i], "--threads") == 0) o.threads = (uint32_t)atoi(value);
    if (strcmp(argv[i], "--steps") == 0) o.steps = (uint32_t)atoi(value);
    if (strcmp(argv[i], "--dense") == 0) o.dense_tokens = strcmp(value, "off") == 0 ? KVSIFT_DENSE_OFF : (uint32_t)atoi(value);
    if (strcmp(argv[i], "--layout") == 0) o.by_token = strcmp(value, "token") == 0;
    if (strcmp(argv[i], "--learn") == 0) o.apart = strcmp(value, "apart") == 0;
    if (strcmp(argv[i], "--method") == 0) o.only = value;
  }
  kvsift_build_info info = {.struct_size = sizeof info};
  kvsift_get_build_info(&info);
  const double flops = bench_peak_flops();
  const double bandwidth[2] = {read_bandwidth(1), read_bandwidth(2)};
  printf("{\"level\": \"%s\", \"multiply_add_flops\": %.3g, \"read_bytes_per_second\": [%.3g, %.3g], \"layout\": \"%s\", "
         "\"learn\": \"%s\", \"results\": [",
         info.level, flops, bandwidth[0], bandwidth[1], o.by_token ? "token" : "head", o.apart ? "apart" : "at once");
  fprintf(stderr, "%s: %.0f Gflop/s a core, %.1f and %.1f GB/s with one and two threads\n", info.level, flops * 1e-9,
          bandwidth[0] * 1e-9, bandwidth[1] * 1e-9);
  run_all(&o, bandwidth, flops);
  printf("\n]}\n");
  return 0;
}
