/* BalanceKV and what it competes with, on recorded queries, keys and values: relative error of attention after the middle of
 * a prompt was compressed. Sinks, the prompt's last tokens and all later ones stay exact in every variant.
 *
 *     sweep_balance ../shared/traces/war_and_peace 3 6 9 [seeds=3] [only=graded]
 *
 * dump_trace makes such a folder of the example model.
 *
 * Error: |o - exact| / |exact|, mean over query heads and the queries from the 65th on; the first 64 recorded queries stand
 * for the prompt's last, which the graded form and the top tokens (as SnapKV chooses, unpooled) go by. */
#include <kvsift/balance.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../npy.h"

enum { SINKS = 16, WINDOW = 64, SEEN = 64, RATES = 4, MAX_LAYERS = 12, WIDEST = 4096 };

/* The model's, from the files. */
static struct { uint32_t dim, kv_heads, group; } shape;

typedef struct layer_data {
  npy_array q, k, v;
  float *exact;       /* [query][query head][dim] */
  float *importance;  /* [KV head][tokens] */
} layer_data;

typedef struct trace {
  layer_data layers[MAX_LAYERS];
  uint32_t layer_numbers[MAX_LAYERS], layer_count, tokens, queries, prompt;
} trace;

typedef enum kind { BALANCE, PAGE_MEANS, TOP } kind;

typedef struct variant {
  const char *name;
  kind kind;
  uint32_t form, group;
  float gamma, temperature, offset;
  int published; /* 2^T in the denominator */
} variant;

typedef struct weighted_set {
  uint32_t index[WIDEST], count;
  float numerator[WIDEST], denominator[WIDEST];
} weighted_set;

static void die(const char *what) {
  fprintf(stderr, "%s\n", what);
  exit(1);
}

static float half_value(uint16_t h) {
  const int exponent = h >> 10 & 31;
  const float fraction = (float)(h & 1023);
  const float magnitude = exponent == 0 ? ldexpf(fraction, -24) : ldexpf(1024.0f + fraction, exponent - 25);
  return (h & 0x8000u) != 0 ? -magnitude : magnitude;
}

static kvsift_view rows_of(const npy_array *a) {
  kvsift_view view = {0};
  view.data = a->data;
  view.type = KVSIFT_F16;
  view.head_stride = shape.dim * 2;
  view.token_stride = a->shape[1] * shape.dim * 2;
  return view;
}

static kvsift_cache cache_of(const layer_data *l, uint32_t tokens) {
  kvsift_cache cache = {0};
  cache.struct_size = sizeof cache;
  cache.tokens = tokens;
  cache.keys = rows_of(&l->k);
  cache.values = rows_of(&l->v);
  return cache;
}

static void query_of(const layer_data *l, uint32_t i, uint32_t head, float *out) {
  const uint16_t *p = (const uint16_t *)l->q.data + ((uint64_t)i * shape.kv_heads * shape.group + head) * shape.dim;
  for (uint32_t c = 0; c < shape.dim; ++c) out[c] = half_value(p[c]);
}

static void attend(const float *query, const kvsift_cache *cache, uint32_t head, const weighted_set *set, float *out) {
  kvsift_error error;
  const kvsift_weighted numerator = {set->index, set->numerator, set->count, 0};
  const kvsift_weighted denominator = {set->index, set->denominator, set->count, 0};
  if (kvsift_balance_attend(shape.dim, 0.0f, query, cache, head, &numerator, &denominator, out, &error) != KVSIFT_OK)
    die(error.message);
}

static void add(weighted_set *set, uint32_t token, float numerator, float denominator) {
  set->index[set->count] = token;
  set->numerator[set->count] = numerator;
  set->denominator[set->count++] = denominator;
}

static void prepare(trace *t, layer_data *l) {
  kvsift_cache cache = cache_of(l, t->tokens);
  weighted_set *all = calloc(1, sizeof *all);
  l->exact = malloc(sizeof(float) * t->queries * shape.kv_heads * shape.group * shape.dim);
  l->importance = malloc(sizeof(float) * shape.kv_heads * t->tokens);
  float query[KVSIFT_MAX_HEAD_DIM], *row = malloc(sizeof(float) * t->tokens);
  for (uint32_t i = 0; i < t->prompt; ++i) add(all, i, 1.0f, 1.0f);
  for (uint32_t i = 0; i < t->queries; ++i) {
    add(all, t->prompt + i, 1.0f, 1.0f);
    for (uint32_t h = 0; h < shape.kv_heads * shape.group; ++h) {
      query_of(l, i, h, query);
      const uint64_t row = (uint64_t)i * shape.kv_heads * shape.group + h;
      attend(query, &cache, h / shape.group, all, l->exact + row * shape.dim);
    }
  }
  for (uint32_t h = 0; h < shape.kv_heads; ++h) {
    kvsift_error error;
    kvsift_query queries = {sizeof queries, t->prompt + SEEN, rows_of(&l->q), h, 0, SEEN, 0};
    if (kvsift_balance_importance(shape.dim, 0.0f, &queries, shape.group, &cache, row, l->importance + h * t->tokens,
                                  &error) !=
        KVSIFT_OK) {
      die(error.message);
    }
  }
  free(all);
  free(row);
}

static void compress_head(const trace *t, const layer_data *l, const variant *v, uint32_t head, uint32_t halvings,
                          uint64_t seed, weighted_set *set) {
  kvsift_error error = {0};
  kvsift_balance_config c = {0};
  c.struct_size = sizeof c;
  kvsift_balance_config_init(&c, v->form);
  c.head_dim = shape.dim;
  c.halvings = halvings;
  c.group_tokens = v->group;
  c.gamma = v->gamma;
  c.temperature = v->temperature;
  c.value_offset = v->offset;
  c.weights = v->published ? KVSIFT_BALANCE_PUBLISHED : KVSIFT_BALANCE_NORMALISED;
  c.seed = seed;
  c.importance = l->importance + head * t->tokens;
  c.error = &error;
  const kvsift_cache cache = cache_of(l, t->tokens);
  const kvsift_range range = {SINKS, t->prompt - WINDOW};
  uint64_t bytes = 0;
  static uint32_t index[WIDEST];
  static float weight[WIDEST];
  uint32_t count = 0;
  if (kvsift_balance_scratch_size(&c, range.end - range.begin, &bytes) != KVSIFT_OK) die(error.message);
  void *scratch = aligned_alloc(KVSIFT_ARENA_ALIGNMENT, bytes);
  if (kvsift_balance_compress(&c, &cache, head, range, scratch, bytes, index, weight, WIDEST, &count, NULL) != KVSIFT_OK)
    die(error.message);
  for (uint32_t i = 0; i < count; ++i)
    add(set, index[i], weight[i], v->published ? (float)(1u << halvings) : weight[i]);
  free(scratch);
}

static const float *sort_key;
static int by_importance(const void *a, const void *b) {
  const float x = sort_key[*(const uint32_t *)a], y = sort_key[*(const uint32_t *)b];
  return (x < y) - (x > y);
}

static void top_tokens(const trace *t, const layer_data *l, uint32_t head, uint32_t halvings, weighted_set *set) {
  uint32_t order[WIDEST], count = 0;
  for (uint32_t i = SINKS; i < t->prompt - WINDOW; ++i) order[count++] = i;
  sort_key = l->importance + head * t->tokens;
  qsort(order, count, sizeof *order, by_importance);
  for (uint32_t i = 0; i < count >> halvings; ++i) add(set, order[i], 1.0f, 1.0f);
}

/* Pages of 2^halvings tokens as one row each: the cache's rows with the means behind them, all float32. */
static kvsift_cache page_means(const trace *t, const layer_data *l, uint32_t halvings, weighted_set *set, float *rows) {
  const uint32_t page = 1u << halvings, width = shape.kv_heads * shape.dim;
  const uint32_t begin = SINKS, end = t->prompt - WINDOW, means = (end - begin) / page, all = t->tokens + means;
  float *keys = rows, *values = rows + (uint64_t)all * width;
  const uint16_t *k = l->k.data, *v = l->v.data;
  for (uint32_t i = 0; i < t->tokens * width; ++i) {
    keys[i] = half_value(k[i]);
    values[i] = half_value(v[i]);
  }
  for (uint32_t m = 0; m < means; ++m) {
    for (uint32_t c = 0; c < width; ++c) {
      float key = 0.0f, value = 0.0f;
      for (uint32_t i = begin + m * page; i < begin + (m + 1) * page; ++i) {
        key += keys[i * width + c];
        value += values[i * width + c];
      }
      keys[(t->tokens + m) * width + c] = key / (float)page;
      values[(t->tokens + m) * width + c] = value / (float)page;
    }
    add(set, t->tokens + m, (float)page, (float)page);
  }
  for (uint32_t i = begin + means * page; i < end; ++i) add(set, i, 1.0f, 1.0f);
  kvsift_cache cache = cache_of(l, all);
  cache.keys.type = cache.values.type = KVSIFT_F32;
  cache.keys.data = keys;
  cache.values.data = values;
  cache.keys.head_stride = cache.values.head_stride = shape.dim * sizeof(float);
  cache.keys.token_stride = cache.values.token_stride = width * sizeof(float);
  return cache;
}

static double head_error(const trace *t, const layer_data *l, const kvsift_cache *cache, uint32_t head,
                         weighted_set *set) {
  double sum = 0.0;
  for (uint32_t i = 0; i < SINKS; ++i) add(set, i, 1.0f, 1.0f);
  for (uint32_t i = t->prompt - WINDOW; i < t->prompt + SEEN; ++i) add(set, i, 1.0f, 1.0f);
  for (uint32_t i = SEEN; i < t->queries; ++i) {
    add(set, t->prompt + i, 1.0f, 1.0f);
    for (uint32_t g = 0; g < shape.group; ++g) {
      float query[KVSIFT_MAX_HEAD_DIM], out[KVSIFT_MAX_HEAD_DIM];
      const uint64_t row = ((uint64_t)i * shape.kv_heads + head) * shape.group + g;
      const float *exact = l->exact + row * shape.dim;
      double off = 0.0, all = 0.0;
      query_of(l, i, head * shape.group + g, query);
      attend(query, cache, head, set, out);
      for (uint32_t c = 0; c < shape.dim; ++c) {
        off += (double)(out[c] - exact[c]) * (double)(out[c] - exact[c]);
        all += (double)exact[c] * (double)exact[c];
      }
      sum += sqrt(off / all);
    }
  }
  return sum / ((t->queries - SEEN) * shape.group);
}

static double layer_error(const trace *t, const layer_data *l, const variant *v, uint32_t halvings, uint32_t seeds) {
  weighted_set *set = malloc(sizeof *set);
  float *rows = v->kind == PAGE_MEANS ? malloc(sizeof(float) * 4 * t->tokens * shape.kv_heads * shape.dim) : NULL;
  double sum = 0.0;
  for (uint32_t head = 0; head < shape.kv_heads; ++head) {
    for (uint32_t seed = 1; seed <= seeds; ++seed) {
      kvsift_cache cache = cache_of(l, t->tokens);
      set->count = 0;
      if (v->kind == PAGE_MEANS) cache = page_means(t, l, halvings, set, rows);
      else if (v->kind == TOP) top_tokens(t, l, head, halvings, set);
      else compress_head(t, l, v, head, halvings, seed, set);
      sum += head_error(t, l, &cache, head, set);
    }
  }
  free(rows);
  free(set);
  return sum / (shape.kv_heads * seeds);
}

static void run(const trace *t, const variant *v, uint32_t seeds) {
  printf("| %s |", v->name);
  double mean[RATES] = {0};
  for (uint32_t i = 0; i < t->layer_count; ++i) {
    for (uint32_t rate = 0; rate < RATES; ++rate) {
      const double e = layer_error(t, &t->layers[i], v, rate + 1, v->kind == BALANCE ? seeds : 1);
      mean[rate] += e / t->layer_count;
      printf(rate == 0 ? " %.3f" : " / %.3f", e);
    }
    printf(" |");
  }
  for (uint32_t rate = 0; rate < RATES; ++rate) printf(rate == 0 ? " %.4f" : " / %.4f", mean[rate]);
  printf(" |\n");
  fflush(stdout);
}

static const variant variants[] = {
    {"permutation", BALANCE, KVSIFT_BALANCE_PERMUTATION, 256, 0.0f, 1.0f, 0.025f, 0},
    {"uniform signs", BALANCE, KVSIFT_BALANCE_UNIFORM, 256, 0.0f, 1.0f, 0.025f, 0},
    {"page means", PAGE_MEANS, 0, 0, 0.0f, 0.0f, 0.0f, 0},
    {"top tokens", TOP, 0, 0, 0.0f, 0.0f, 0.0f, 0},
    {"practical, group 256, temperature 0.3", BALANCE, KVSIFT_BALANCE_PRACTICAL, 256, 4.0f, 0.3f, 0.025f, 0},
    {"the same, published estimator", BALANCE, KVSIFT_BALANCE_PRACTICAL, 256, 4.0f, 0.3f, 0.025f, 1},
    {"practical, temperature 0.03", BALANCE, KVSIFT_BALANCE_PRACTICAL, 256, 4.0f, 0.03f, 0.025f, 0},
    {"practical, temperature 0.1", BALANCE, KVSIFT_BALANCE_PRACTICAL, 256, 4.0f, 0.1f, 0.025f, 0},
    {"practical, temperature 1", BALANCE, KVSIFT_BALANCE_PRACTICAL, 256, 4.0f, 1.0f, 0.025f, 0},
    {"practical, gamma 0.1", BALANCE, KVSIFT_BALANCE_PRACTICAL, 256, 0.1f, 0.3f, 0.025f, 0},
    {"practical, gamma 0.5", BALANCE, KVSIFT_BALANCE_PRACTICAL, 256, 0.5f, 0.3f, 0.025f, 0},
    {"practical, gamma 1000", BALANCE, KVSIFT_BALANCE_PRACTICAL, 256, 1000.0f, 0.3f, 0.025f, 0},
    {"practical, offset 0", BALANCE, KVSIFT_BALANCE_PRACTICAL, 256, 4.0f, 0.3f, 0.0f, 0},
    {"practical, offset 1", BALANCE, KVSIFT_BALANCE_PRACTICAL, 256, 4.0f, 0.3f, 1.0f, 0},
    {"practical, group 64", BALANCE, KVSIFT_BALANCE_PRACTICAL, 64, 4.0f, 0.3f, 0.025f, 0},
    {"practical, group 128", BALANCE, KVSIFT_BALANCE_PRACTICAL, 128, 4.0f, 0.3f, 0.025f, 0},
    {"practical, group 512", BALANCE, KVSIFT_BALANCE_PRACTICAL, 512, 4.0f, 0.3f, 0.025f, 0},
    {"practical, group 512, temperature 0.1", BALANCE, KVSIFT_BALANCE_PRACTICAL, 512, 4.0f, 0.1f, 0.025f, 0},
    {"practical, one group, temperature 0.1", BALANCE, KVSIFT_BALANCE_PRACTICAL, 0, 4.0f, 0.1f, 0.025f, 0},
    {"practical, one group", BALANCE, KVSIFT_BALANCE_PRACTICAL, 0, 4.0f, 0.3f, 0.025f, 0},
    {"relative, gamma 1, temperature 0.1", BALANCE, KVSIFT_BALANCE_RELATIVE, 256, 1.0f, 0.1f, 0.025f, 0},
    {"relative, gamma 4, temperature 0.1", BALANCE, KVSIFT_BALANCE_RELATIVE, 256, 4.0f, 0.1f, 0.025f, 0},
    {"theory, the theorem's c", BALANCE, KVSIFT_BALANCE_THEORY, 256, 0.0f, 1.0f, 0.025f, 0},
    {"theory, gamma 4, temperature 0.1", BALANCE, KVSIFT_BALANCE_THEORY, 256, 4.0f, 0.1f, 0.025f, 0},
    {"graded, group 256, temperature 0.3", BALANCE, KVSIFT_BALANCE_GRADED, 256, 4.0f, 0.3f, 0.025f, 0},
    {"graded, gamma 0 (signs without balance)", BALANCE, KVSIFT_BALANCE_GRADED, 256, 0.0f, 0.3f, 0.025f, 0},
    {"graded, temperature 0.1", BALANCE, KVSIFT_BALANCE_GRADED, 256, 4.0f, 0.1f, 0.025f, 0},
    {"graded, group 512", BALANCE, KVSIFT_BALANCE_GRADED, 512, 4.0f, 0.3f, 0.025f, 0},
    {"graded, group 512, temperature 0.1", BALANCE, KVSIFT_BALANCE_GRADED, 512, 4.0f, 0.1f, 0.025f, 0},
};

int main(int argc, char **argv) {
  static trace t;
  if (argc < 3) die("usage: sweep_balance FOLDER LAYER... [seeds=N] [only=TEXT]");
  const char *only = "";
  uint32_t seeds = 3;
  for (int i = 2; i < argc; ++i) {
    char path[512];
    if (sscanf(argv[i], "seeds=%u", &seeds) == 1) continue;
    if (strncmp(argv[i], "only=", 5) == 0) {
      only = argv[i] + 5;
      continue;
    }
    if (t.layer_count == MAX_LAYERS) die("too many layers");
    layer_data *l = &t.layers[t.layer_count];
    npy_array *arrays[] = {&l->q, &l->k, &l->v};
    for (int a = 0; a < 3; ++a) {
      snprintf(path, sizeof path, "%s/layer%02d_%c.npy", argv[1], atoi(argv[i]), "qkv"[a]);
      if (npy_load(path, arrays[a]) != 0) die(path);
    }
    t.layer_numbers[t.layer_count++] = (uint32_t)atoi(argv[i]);
    t.tokens = (uint32_t)l->k.shape[0];
    t.queries = (uint32_t)l->q.shape[0];
    shape.kv_heads = (uint32_t)l->k.shape[1];
    shape.dim = (uint32_t)l->k.shape[2];
    shape.group = (uint32_t)(l->q.shape[1] / l->k.shape[1]);
    if (t.tokens > WIDEST || shape.dim > KVSIFT_MAX_HEAD_DIM || l->q.shape[2] != shape.dim) die("not a trace of this shape");
  }
  t.prompt = t.tokens - t.queries;
  for (uint32_t i = 0; i < t.layer_count; ++i) prepare(&t, &t.layers[i]);
  printf("| rates 1/2 / 1/4 / 1/8 / 1/16 |");
  for (uint32_t i = 0; i < t.layer_count; ++i) printf(" layer %u |", t.layer_numbers[i]);
  printf(" mean |\n|---|");
  for (uint32_t i = 0; i <= t.layer_count; ++i) printf("---|");
  printf("\n");
  for (size_t i = 0; i < sizeof variants / sizeof *variants; ++i)
    if (strstr(variants[i].name, only) != NULL) run(&t, &variants[i], seeds);
  return 0;
}
