/* Every method on real queries, keys and values: error of the output and attention mass kept, per budget.
 *
 *     quality_traces ../shared/traces/war_and_peace 3,9:256 6:512 > quality.json
 *
 * Each argument after the folder is LAYERS:BUDGET. Sinks 16 and local 64 tokens inside the budget, blocks of 16, one
 * choice per query head. 64 queries go before as history, the rest are decode steps. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <kvsift/kvsift.h>

#include "../npy.h"

enum { QUERY_HEADS = 8, KV_HEADS = 4, GROUP = 2, DIM = 64, HISTORY = 64, BLOCK = 16, SINK = 16, LOCAL = 64 };

typedef struct trace {
  npy_array q, k, v;
  uint32_t tokens, queries;
} trace;

typedef struct figures {
  double error, recovery;
  uint64_t count;
} figures;

/* One row of the table: a method and how it differs from its defaults. */
typedef struct variant {
  const char *label;
  kvsift_method method;
  uint32_t tail, period, oracle;
  float decay;
  uint32_t halves; /* moments in float16 */
} variant;

static const variant kVariants[] = {
    {"oracle blocks + moments", KVSIFT_METHOD_PAGE_STATS, KVSIFT_TAIL_MOMENTS, 0, 1, 0, 0},
    {"page-stats + moments", KVSIFT_METHOD_PAGE_STATS, KVSIFT_TAIL_MOMENTS, 0, 0, 0, 0},
    {"page-stats + float16 moments", KVSIFT_METHOD_PAGE_STATS, KVSIFT_TAIL_MOMENTS, 0, 0, 0, 1},
    {"quest + moments", KVSIFT_METHOD_QUEST, KVSIFT_TAIL_MOMENTS, 0, 0, 0, 0},
    {"attention-predictor + moments", KVSIFT_METHOD_ATTENTION_PREDICTOR, KVSIFT_TAIL_MOMENTS, 5, 0, 0, 0},
    {"oracle blocks", KVSIFT_METHOD_PAGE_STATS, KVSIFT_TAIL_NONE, 0, 1, 0, 0},
    {"page-stats", KVSIFT_METHOD_PAGE_STATS, KVSIFT_TAIL_NONE, 0, 0, 0, 0},
    {"quest", KVSIFT_METHOD_QUEST, KVSIFT_TAIL_NONE, 0, 0, 0, 0},
    {"h2o, blocks, evicting", KVSIFT_METHOD_H2O, KVSIFT_TAIL_NONE, 0, 0, 0, 0},
    {"ema of dense rows", KVSIFT_METHOD_EMA, KVSIFT_TAIL_NONE, 1, 0, 0.8f, 0},
    {"attention-predictor", KVSIFT_METHOD_ATTENTION_PREDICTOR, KVSIFT_TAIL_NONE, 5, 0, 0, 0},
    {"last step's blocks", KVSIFT_METHOD_EMA, KVSIFT_TAIL_NONE, 1, 0, 0, 0},
    {"snapkv", KVSIFT_METHOD_SNAPKV, KVSIFT_TAIL_NONE, 0, 0, 0, 0},
    {"uniform", KVSIFT_METHOD_UNIFORM, KVSIFT_TAIL_NONE, 0, 0, 0, 0},
    {"ema of sparse rows", KVSIFT_METHOD_EMA, KVSIFT_TAIL_NONE, 5, 0, 0.8f, 0},
    {"streaming", KVSIFT_METHOD_STREAMING, KVSIFT_TAIL_NONE, 0, 0, 0, 0},
};

static void check(kvsift_status status, const char *what, const char *why) {
  if (status == KVSIFT_OK) return;
  fprintf(stderr, "%s: %s: %s\n", what, kvsift_status_string(status), why);
  exit(1);
}

static int load_trace(const char *folder, int layer, trace *t) {
  char path[512];
  npy_array *parts[3] = {&t->q, &t->k, &t->v};
  for (int i = 0; i < 3; ++i) {
    snprintf(path, sizeof path, "%s/layer%02d_%c.npy", folder, layer, "qkv"[i]);
    if (npy_load(path, parts[i]) != 0) return -1;
  }
  t->tokens = (uint32_t)t->k.shape[0];
  t->queries = (uint32_t)t->q.shape[0];
  return 0;
}

static kvsift_view view_of(const npy_array *a, uint32_t heads, uint32_t first) {
  const char *data = (const char *)a->data + (size_t)first * heads * DIM * 2;
  kvsift_view view = {.data = data, .type = KVSIFT_F16, .token_stride = heads * DIM * 2, .head_stride = DIM * 2};
  return view;
}

static kvsift_cache cache_of(const trace *t, uint32_t tokens) {
  kvsift_cache cache = {.struct_size = sizeof cache, .tokens = tokens};
  cache.keys = view_of(&t->k, KV_HEADS, 0);
  cache.values = view_of(&t->v, KV_HEADS, 0);
  return cache;
}

static kvsift_query query_of(const trace *t, uint32_t first, uint32_t rows) {
  kvsift_query query = {.struct_size = sizeof query, .rows = rows};
  query.tokens = t->tokens - t->queries + first + rows;
  query.view = view_of(&t->q, QUERY_HEADS, first);
  return query;
}

static kvsift_policy *make_policy(const trace *t, const variant *v, uint32_t budget) {
  kvsift_error error = {0};
  kvsift_policy_config c = {.struct_size = sizeof c};
  check(kvsift_policy_config_init(&c, v->method), "config", "");
  c.dense_tokens = KVSIFT_DENSE_OFF;
  c.layers = 1, c.query_heads = QUERY_HEADS, c.kv_heads = KV_HEADS, c.head_dim = DIM;
  c.max_tokens = t->tokens, c.dense_layers = 0, c.block_tokens = BLOCK, c.budget_tokens = budget;
  c.sink_tokens = SINK, c.local_tokens = LOCAL, c.tail = v->tail, c.error = &error;
  c.moments_type = v->halves ? KVSIFT_F16 : KVSIFT_I8;
  c.calibration_period = v->period, c.calibration_dense = 0, c.ema_decay = v->decay;
  if (v->method == KVSIFT_METHOD_SNAPKV || v->method == KVSIFT_METHOD_UNIFORM) c.block_tokens = 1;
  uint64_t bytes = 0, alignment = 0;
  check(kvsift_policy_arena_size(&c, &bytes, &alignment), v->label, error.message);
  void *arena = aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
  kvsift_policy *policy = NULL;
  check(kvsift_policy_create(&c, arena, bytes, &policy), v->label, error.message);
  return policy;
}

static float of_half(uint16_t half) {
  const int exponent = (half >> 10) & 31;
  const float magnitude = exponent == 0 ? ldexpf((float)(half & 1023), -24) : ldexpf((float)(1024 | (half & 1023)), exponent - 25);
  return half >> 15 ? -magnitude : magnitude;
}

/* Softmax rows of all query heads over `tokens` tokens, in double. */
static void true_rows(const trace *t, uint32_t step, uint32_t tokens, float *rows) {
  static float logits[1 << 14];
  for (uint32_t h = 0; h < QUERY_HEADS; ++h) {
    const uint16_t *query = (const uint16_t *)t->q.data + ((size_t)step * QUERY_HEADS + h) * DIM;
    double max = -DBL_MAX, sum = 0;
    for (uint32_t i = 0; i < tokens; ++i) {
      const uint16_t *key = (const uint16_t *)t->k.data + ((size_t)i * KV_HEADS + h / GROUP) * DIM;
      double dot = 0;
      for (int c = 0; c < DIM; ++c) {
        dot += (double)of_half(query[c]) * (double)of_half(key[c]);
      }
      logits[i] = (float)(dot / sqrt(DIM));
      if (logits[i] > max) max = logits[i];
    }
    for (uint32_t i = 0; i < tokens; ++i) sum += exp(logits[i] - max);
    for (uint32_t i = 0; i < tokens; ++i) rows[(size_t)h * tokens + i] = (float)(exp(logits[i] - max) / sum);
  }
}

/* The best whole blocks for one row: replaces a list, given the same budget. */
static uint32_t oracle_list(const float *row, uint32_t tokens, uint32_t budget, kvsift_range *ranges) {
  static unsigned char kept[1 << 14];
  memset(kept, 0, tokens);
  memset(kept, 1, SINK);
  memset(kept + tokens - LOCAL, 1, LOCAL);
  const uint32_t blocks = (tokens + BLOCK - 1) / BLOCK, last = blocks - LOCAL / BLOCK;
  for (uint32_t k = 0; k < (budget - SINK - LOCAL) / BLOCK; ++k) {
    double best = -1;
    uint32_t choice = 0;
    for (uint32_t b = SINK / BLOCK; b < last; ++b) {
      double mass = 0;
      uint32_t fresh = 0;
      for (uint32_t i = b * BLOCK; i < (b + 1) * BLOCK && i < tokens; ++i) {
        mass += kept[i] ? 0 : row[i];
        fresh += !kept[i];
      }
      if (fresh > 0 && mass > best) best = mass, choice = b;
    }
    for (uint32_t i = choice * BLOCK; i < (choice + 1) * BLOCK && i < tokens; ++i) kept[i] = 1;
  }
  uint32_t count = 0;
  for (uint32_t i = 0; i < tokens; ++i) {
    if (!kept[i]) continue;
    if (count > 0 && ranges[count - 1].end == i) {
      ranges[count - 1].end = i + 1;
    } else {
      ranges[count++] = (kvsift_range){i, i + 1};
    }
  }
  return count;
}

static void use_oracle(kvsift_selection *s, const float *rows, uint32_t budget) {
  for (uint32_t h = 0; h < QUERY_HEADS; ++h) {
    ((uint32_t *)s->range_counts)[h] = oracle_list(rows + (size_t)h * s->tokens, s->tokens, budget,
                                                   (kvsift_range *)s->ranges + (size_t)h * s->range_stride);
  }
}

static void add_step(figures *f, const kvsift_selection *s, const float *rows, const float *out, const float *full) {
  for (uint32_t h = 0; h < QUERY_HEADS; ++h) {
    double kept = 0, difference = 0, norm = 0;
    for (uint32_t r = 0; r < s->range_counts[h]; ++r) {
      const kvsift_range range = s->ranges[(size_t)h * s->range_stride + r];
      for (uint32_t i = range.begin; i < range.end; ++i) kept += rows[(size_t)h * s->tokens + i];
    }
    for (int c = 0; c < DIM; ++c) {
      const double d = (double)out[h * DIM + c] - full[h * DIM + c];
      difference += d * d;
      norm += (double)full[h * DIM + c] * full[h * DIM + c];
    }
    f->error += sqrt(difference / norm);
    f->recovery += kept;
    ++f->count;
  }
}

static void run_layer(const trace *t, const variant *v, uint32_t budget, figures *f) {
  static float out[HISTORY * QUERY_HEADS * DIM], full[QUERY_HEADS * DIM];
  static float block_max[QUERY_HEADS << 14], block_mass[QUERY_HEADS << 14], lse[QUERY_HEADS];
  static float rows[QUERY_HEADS << 14];
  const variant dense = {.label = "full", .method = KVSIFT_METHOD_FULL};
  kvsift_policy *policy = make_policy(t, v, budget), *reference = make_policy(t, &dense, t->tokens);
  const uint32_t prompt = t->tokens - t->queries + HISTORY;
  const kvsift_view keys = view_of(&t->k, KV_HEADS, 0), values = view_of(&t->v, KV_HEADS, 0);
  kvsift_query history = query_of(t, 0, HISTORY);
  kvsift_cache cache = cache_of(t, prompt);
  check(kvsift_observe_keys(policy, 0, NULL, 0, prompt, &keys, &values), v->label, kvsift_last_error(policy));
  check(kvsift_prefill_attend(policy, 0, &history, &cache, out), v->label, kvsift_last_error(policy));
  check(kvsift_advance(policy, prompt), v->label, kvsift_last_error(policy));
  check(kvsift_advance(reference, prompt), "full", kvsift_last_error(reference));
  for (uint32_t step = HISTORY; step < t->queries; ++step) {
    const kvsift_query query = query_of(t, step, 1);
    const kvsift_view key = view_of(&t->k, KV_HEADS, query.tokens - 1);
    const kvsift_view value = view_of(&t->v, KV_HEADS, query.tokens - 1);
    kvsift_selection selection = {.struct_size = sizeof selection}, everything = {.struct_size = sizeof everything};
    kvsift_observation seen = {.struct_size = sizeof seen, .block_stride = 1 << 14, .block_max = block_max,
                               .block_mass = block_mass, .log_sum_exp = lse};
    cache.tokens = query.tokens;
    check(kvsift_observe_keys(policy, 0, NULL, query.tokens - 1, 1, &key, &value), v->label, kvsift_last_error(policy));
    check(kvsift_select_blocks(policy, 0, &query, &selection), v->label, kvsift_last_error(policy));
    check(kvsift_select_blocks(reference, 0, &query, &everything), "full", kvsift_last_error(reference));
    check(kvsift_attend(reference, 0, &query, &cache, &everything, full, NULL), "full", kvsift_last_error(reference));
    true_rows(t, step, query.tokens, rows);
    if (v->oracle) use_oracle(&selection, rows, budget);
    check(kvsift_attend(policy, 0, &query, &cache, &selection, out, &seen), v->label, kvsift_last_error(policy));
    check(kvsift_observe_attention(policy, 0, &query, &seen), v->label, kvsift_last_error(policy));
    check(kvsift_advance(policy, 1), v->label, kvsift_last_error(policy));
    check(kvsift_advance(reference, 1), "full", kvsift_last_error(reference));
    add_step(f, &selection, rows, out, full);
  }
  free(policy);
  free(reference);
}

int main(int argc, char **argv) {
  if (argc < 3) {
    fprintf(stderr, "usage: %s TRACE_FOLDER LAYER[,LAYER...]:BUDGET ...\n", argv[0]);
    return 2;
  }
  printf("{\"traces\": \"%s\", \"results\": [", argv[1]);
  for (int a = 2; a < argc; ++a) {
    const char *colon = strchr(argv[a], ':');
    const uint32_t budget = colon == NULL ? 256 : (uint32_t)atoi(colon + 1);
    for (size_t i = 0; i < sizeof kVariants / sizeof kVariants[0]; ++i) {
      figures f = {0};
      for (const char *p = argv[a]; p != NULL && p < (colon == NULL ? p + 1 : colon); p = strchr(p, ',')) {
        trace t;
        if (*p == ',') ++p;
        if (load_trace(argv[1], atoi(p), &t) != 0) {
          fprintf(stderr, "%s: layer %d cannot be read\n", argv[1], atoi(p));
          return 1;
        }
        run_layer(&t, &kVariants[i], budget, &f);
        npy_free(&t.q), npy_free(&t.k), npy_free(&t.v);
      }
      printf("%s\n {\"layers\": \"%.*s\", \"budget\": %u, \"method\": \"%s\", \"error\": %.4f, \"recovery\": %.4f}",
             a == 2 && i == 0 ? "" : ",", colon == NULL ? 8 : (int)(colon - argv[a]), argv[a], budget,
             kVariants[i].label, f.error / (double)f.count, f.recovery / (double)f.count);
      fprintf(stderr, "%-10s %-32s error %.3f  recovery %.3f\n", argv[a], kVariants[i].label,
              f.error / (double)f.count, f.recovery / (double)f.count);
    }
  }
  printf("\n]}\n");
  return 0;
}
