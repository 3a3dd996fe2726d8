/* What the predictor's cheaper forms cost in recovery (attention mass on the kept tokens), on real queries and keys.
 *
 *     quality_predictor ../shared/traces/war_and_peace 3:256 9:256 6:512 [--weights FILE]
 *
 * The folder holds what dump_trace writes. Each argument after it is LAYER:BUDGET. Sinks 16 and local 64 tokens inside the
 * budget, blocks of 16. The rows of 64 queries go before as history, the rest are decode steps; all forms see the same
 * queries. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <kvsift/kvsift.h>

#include "../npy.h"

enum { MOST_HEADS = 64, MOST_DIM = 256, HISTORY = 64, SINK = 16, LOCAL = 64, MOST = 1 << 14 };

typedef struct form {
  const char *label;
  kvsift_method method;
  uint32_t grouping, period, calibration;
  kvsift_type history, arithmetic;
  float floor, decay;
  uint32_t verify, fast;
} form;

#define PREDICTOR .method = KVSIFT_METHOD_ATTENTION_PREDICTOR, .calibration = 5, .period = 1
static const form kForms[] = {
    {"exact", PREDICTOR},
    {"floor 0.0003", PREDICTOR, .floor = 0.0003f},
    {"floor 0.001", PREDICTOR, .floor = 0.001f},
    {"floor 0.003", PREDICTOR, .floor = 0.003f},
    {"floor 0.01", PREDICTOR, .floor = 0.01f},
    {"history in 16 bits", PREDICTOR, .history = KVSIFT_F16},
    {"history in 8 bits", PREDICTOR, .history = KVSIFT_I8},
    {"int8 second convolution", PREDICTOR, .arithmetic = KVSIFT_I8},
    {"bf16 second convolution", PREDICTOR, .arithmetic = KVSIFT_BF16},
    {"every 2nd step", .method = KVSIFT_METHOD_ATTENTION_PREDICTOR, .calibration = 5, .period = 2},
    {"every 4th step", .method = KVSIFT_METHOD_ATTENTION_PREDICTOR, .calibration = 5, .period = 4},
    {"every 8th step", .method = KVSIFT_METHOD_ATTENTION_PREDICTOR, .calibration = 5, .period = 8},
    {"one per KV head, mean", PREDICTOR, .grouping = KVSIFT_GROUP_MEAN},
    {"one per KV head, max", PREDICTOR, .grouping = KVSIFT_GROUP_MAX},
    {"attention-predictor-fast", PREDICTOR, .fast = 1},
    {"fast, one per KV head", PREDICTOR, .fast = 1, .grouping = KVSIFT_GROUP_MEAN},
    {"no calibration", .method = KVSIFT_METHOD_ATTENTION_PREDICTOR, .period = 1},
    {"calibrated every 8th step", .method = KVSIFT_METHOD_ATTENTION_PREDICTOR, .period = 1, .calibration = 8},
    {"calibrated every 16th step", .method = KVSIFT_METHOD_ATTENTION_PREDICTOR, .period = 1, .calibration = 16},
    {"calibrated every step", .method = KVSIFT_METHOD_ATTENTION_PREDICTOR, .period = 1, .calibration = 1},
    {"exact, 4 blocks verified late", PREDICTOR, .verify = 4},
    {"ema of the same rows", .method = KVSIFT_METHOD_EMA, .calibration = 5, .decay = 0.8f},
    {"last step's blocks, same rows", .method = KVSIFT_METHOD_EMA, .calibration = 5},
    {"ema of dense rows", .method = KVSIFT_METHOD_EMA, .calibration = 1, .decay = 0.8f},
    {"page statistics", .method = KVSIFT_METHOD_PAGE_STATS},
};
enum { FORMS = sizeof kForms / sizeof kForms[0] };

typedef struct world {
  npy_array q, k;
  uint32_t tokens, queries, heads, kv_heads, dim;
  float *keys;
  float *rows, *kept_rows; /* [heads][MOST]: a step's softmax, and a form's own after masking */
  const kvsift_predictor *predictor;
} world;

typedef struct tally {
  kvsift_policy *policy; /* null: this build has not that form */
  double recovery;
  uint64_t count;
} tally;

static void must(int condition, const char *what) {
  if (condition) return;
  fprintf(stderr, "%s\n", what);
  exit(1);
}

static float float_of(uint16_t half) {
  const int exponent = half >> 10 & 31;
  const float fraction = (float)(half & 1023) / 1024;
  const float size = exponent == 0 ? ldexpf(fraction, -14) : ldexpf(1 + fraction, exponent - 15);
  return half & 0x8000 ? -size : size;
}

static void softmax_rows(world *w, uint32_t query, uint32_t tokens) {
  for (uint32_t h = 0; h < w->heads; ++h) {
    const uint16_t *q = (const uint16_t *)w->q.data + ((size_t)query * w->heads + h) * w->dim;
    float *row = w->rows + (size_t)h * MOST, values[MOST_DIM], max = -INFINITY;
    double sum = 0;
    for (uint32_t c = 0; c < w->dim; ++c) values[c] = float_of(q[c]);
    for (uint32_t t = 0; t < tokens; ++t) {
      const float *k = w->keys + ((size_t)t * w->kv_heads + h / (w->heads / w->kv_heads)) * w->dim;
      float dot = 0;
      for (uint32_t c = 0; c < w->dim; ++c) dot += values[c] * k[c];
      row[t] = dot / sqrtf((float)w->dim);
      max = fmaxf(max, row[t]);
    }
    for (uint32_t t = 0; t < tokens; ++t) sum += (double)(row[t] = expf(row[t] - max));
    for (uint32_t t = 0; t < tokens; ++t) row[t] = (float)(row[t] / sum);
  }
}

static kvsift_policy *make_policy(const world *w, const form *f, uint32_t budget) {
  kvsift_error error = {0};
  kvsift_policy_config c = {.struct_size = sizeof c};
  kvsift_policy *policy = NULL;
  uint64_t bytes = 0;
  must(kvsift_policy_config_init(&c, f->method) == KVSIFT_OK, f->label);
  if (f->fast) must(kvsift_policy_config_predictor_fast(&c) == KVSIFT_OK, f->label);
  c.dense_tokens = KVSIFT_DENSE_OFF;
  c.layers = 1, c.query_heads = w->heads, c.kv_heads = w->kv_heads, c.head_dim = w->dim, c.max_tokens = w->tokens;
  c.dense_layers = 0, c.budget_tokens = budget, c.sink_tokens = SINK, c.local_tokens = LOCAL;
  c.calibration_dense = 0, c.grouping = f->grouping, c.error = &error;
  if (!f->fast) c.calibration_period = f->calibration;
  c.ema_decay = f->decay, c.verify_blocks = f->verify, c.predictor = w->predictor;
  if (f->method == KVSIFT_METHOD_ATTENTION_PREDICTOR && !f->fast) {
    c.predict_period = f->period, c.history_type = f->history, c.history_floor = f->floor;
    c.predictor_arithmetic = f->arithmetic;
  }
  if (kvsift_policy_arena_size(&c, &bytes, NULL) != KVSIFT_OK) {
    fprintf(stderr, "skipped %s: %s\n", f->label, error.message);
    return NULL;
  }
  void *arena = aligned_alloc(KVSIFT_ARENA_ALIGNMENT, (size_t)bytes);
  must(kvsift_policy_create(&c, arena, bytes, &policy) == KVSIFT_OK, error.message);
  return policy;
}

static void observe(kvsift_policy *policy, const float *rows, uint32_t tokens, uint32_t full) {
  const kvsift_observation seen = {.struct_size = sizeof seen, .tokens = tokens, .full = full, .rows = rows, .row_stride = MOST};
  must(kvsift_observe_attention(policy, 0, NULL, &seen) == KVSIFT_OK, kvsift_last_error(policy));
}

/* Adds what the lists keep of the rows, and leaves the rows a sparse step would have seen. */
static void keep(const kvsift_selection *s, const world *w, tally *t) {
  memset(w->kept_rows, 0, sizeof(float) * w->heads * MOST);
  for (uint32_t h = 0; h < w->heads; ++h) {
    const uint32_t list = s->per_query_head ? h : h / (w->heads / w->kv_heads);
    const float *row = w->rows + (size_t)h * MOST;
    float *kept = w->kept_rows + (size_t)h * MOST;
    double mass = 0;
    for (uint32_t i = 0; i < s->range_counts[list]; ++i) {
      const kvsift_range range = s->ranges[(size_t)list * s->range_stride + i];
      for (uint32_t j = range.begin; j < range.end; ++j) mass += (double)(kept[j] = row[j]);
    }
    for (uint32_t j = 0; j < s->tokens; ++j) kept[j] = (float)(kept[j] / mass);
    t->recovery += mass;
    ++t->count;
  }
}

static void decode_step(world *w, const form *f, uint32_t step, tally *t) {
  const uint32_t tokens = w->tokens - w->queries + step + 1;
  const kvsift_view keys = {.data = w->k.data, .type = KVSIFT_F16, .token_stride = w->kv_heads * w->dim * 2, .head_stride = w->dim * 2};
  kvsift_view key = keys;
  kvsift_query query = {.struct_size = sizeof query, .tokens = tokens, .rows = 1};
  kvsift_selection selection = {.struct_size = sizeof selection};
  query.view = (kvsift_view){.data = (const uint16_t *)w->q.data + (size_t)step * w->heads * w->dim, .type = KVSIFT_F16,
                             .token_stride = w->heads * w->dim * 2, .head_stride = w->dim * 2};
  key.data = (const char *)keys.data + (size_t)(tokens - 1) * keys.token_stride;
  must(kvsift_observe_keys(t->policy, 0, NULL, tokens - 1, 1, &key, NULL) == KVSIFT_OK, kvsift_last_error(t->policy));
  must(kvsift_select_blocks(t->policy, 0, &query, &selection) == KVSIFT_OK, kvsift_last_error(t->policy));
  keep(&selection, w, t);
  const int full = selection.calibration != 0;
  if (f->method != KVSIFT_METHOD_PAGE_STATS) observe(t->policy, full ? w->rows : w->kept_rows, tokens, (uint32_t)full);
  must(kvsift_advance(t->policy, 1) == KVSIFT_OK, kvsift_last_error(t->policy));
}

static void run_layer(world *w, uint32_t budget, tally *tallies) {
  const uint32_t first = w->tokens - w->queries;
  const kvsift_view keys = {.data = w->k.data, .type = KVSIFT_F16, .token_stride = w->kv_heads * w->dim * 2, .head_stride = w->dim * 2};
  for (uint32_t i = 0; i < FORMS; ++i) tallies[i].policy = make_policy(w, &kForms[i], budget);
  for (uint32_t step = 0; step < w->queries; ++step) {
    softmax_rows(w, step, first + step + 1);
    for (uint32_t i = 0; i < FORMS; ++i) {
      tally *t = &tallies[i];
      if (t->policy == NULL) continue;
      if (step >= HISTORY) {
        decode_step(w, &kForms[i], step, t);
        continue;
      }
      if (kForms[i].method != KVSIFT_METHOD_PAGE_STATS) observe(t->policy, w->rows, first + step + 1, 1);
      if (step + 1 < HISTORY) continue;
      must(kvsift_observe_keys(t->policy, 0, NULL, 0, first + HISTORY, &keys, NULL) == KVSIFT_OK, kvsift_last_error(t->policy));
      must(kvsift_advance(t->policy, first + HISTORY) == KVSIFT_OK, kvsift_last_error(t->policy));
    }
  }
}

/* Columns count as a share of those that the plain form computes when it predicts every step. */
static void report(const char *name, const tally *tallies, int last) {
  kvsift_stats plain = {.struct_size = sizeof plain};
  must(kvsift_get_stats(tallies[0].policy, &plain) == KVSIFT_OK, "stats");
  const double columns = (double)plain.columns_total;
  for (uint32_t i = 0; i < FORMS; ++i) {
    kvsift_stats stats = {.struct_size = sizeof stats};
    if (tallies[i].policy == NULL) continue;
    must(kvsift_get_stats(tallies[i].policy, &stats) == KVSIFT_OK, "stats");
    const double share = (double)stats.columns_computed / columns;
    const double recovery = tallies[i].recovery / (double)tallies[i].count;
    printf(" {\"run\": \"%s\", \"form\": \"%s\", \"recovery\": %.4f, \"columns_computed\": %.4f}%s\n", name,
           kForms[i].label, recovery, share, last && i + 1 == FORMS ? "" : ",");
    fprintf(stderr, "%-8s %-32s recovery %.4f  columns %.4f of plain\n", name, kForms[i].label, recovery, share);
    free(tallies[i].policy);
  }
}

static const kvsift_predictor *load_weights(const char *path) {
  static unsigned char bytes[1 << 16];
  FILE *file = fopen(path, "rb");
  kvsift_predictor *predictor = NULL;
  kvsift_error error = {0};
  uint64_t size = 0, alignment = 0;
  must(file != NULL, path);
  const size_t read = fread(bytes, 1, sizeof bytes, file);
  fclose(file);
  must(kvsift_predictor_arena_size(&size, &alignment) == KVSIFT_OK, "predictor");
  void *arena = aligned_alloc((size_t)alignment, (size_t)size);
  must(kvsift_predictor_load(bytes, read, arena, size, &predictor, &error) == KVSIFT_OK, error.message);
  return predictor;
}

int main(int argc, char **argv) {
  world w = {.rows = calloc(MOST_HEADS * MOST, sizeof(float)), .kept_rows = calloc(MOST_HEADS * MOST, sizeof(float))};
  if (argc > 4 && strcmp(argv[argc - 2], "--weights") == 0) {
    w.predictor = load_weights(argv[argc - 1]);
    argc -= 2;
  }
  must(argc >= 3, "usage: quality_predictor TRACE_FOLDER LAYER:BUDGET ... [--weights FILE]");
  printf("{\"results\": [\n");
  for (int a = 2; a < argc; ++a) {
    static tally tallies[FORMS];
    char path[1024];
    const char *colon = strchr(argv[a], ':');
    memset(tallies, 0, sizeof tallies);
    snprintf(path, sizeof path, "%s/layer%02d_q.npy", argv[1], atoi(argv[a]));
    must(npy_load(path, &w.q) == 0, path);
    snprintf(path, sizeof path, "%s/layer%02d_k.npy", argv[1], atoi(argv[a]));
    must(npy_load(path, &w.k) == 0, path);
    w.tokens = (uint32_t)w.k.shape[0];
    w.queries = (uint32_t)w.q.shape[0];
    w.heads = (uint32_t)w.q.shape[1], w.kv_heads = (uint32_t)w.k.shape[1], w.dim = (uint32_t)w.k.shape[2];
    must(w.tokens <= MOST && w.queries > HISTORY && w.queries <= w.tokens && w.heads <= MOST_HEADS && w.dim <= MOST_DIM &&
             w.kv_heads > 0 && w.heads % w.kv_heads == 0,
         "unexpected shapes");
    w.keys = malloc(sizeof(float) * w.k.count);
    for (uint64_t i = 0; i < w.k.count; ++i) w.keys[i] = float_of(((const uint16_t *)w.k.data)[i]);
    run_layer(&w, colon == NULL ? 256 : (uint32_t)atoi(colon + 1), tallies);
    report(argv[a], tallies, a + 1 == argc);
    npy_free(&w.q);
    npy_free(&w.k);
    free(w.keys);
  }
  printf("]}\n");
  free(w.rows);
  free(w.kept_rows);
  return 0;
}
