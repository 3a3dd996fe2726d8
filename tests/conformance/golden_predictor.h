/* Golden runs of the AttentionPredictor: loading, and the arithmetic around the network. */
#ifndef KVSIFT_TESTS_GOLDEN_PREDICTOR_H
#define KVSIFT_TESTS_GOLDEN_PREDICTOR_H

#include <math.h>

#include "../npy.h"

enum {
  GOLDEN_ROWS = 64,
  GOLDEN_BLOCK = 16,
  GOLDEN_SINK = 64,
  GOLDEN_LOCAL = 64,
  GOLDEN_MAX_COLUMNS = 128
};

typedef struct golden_case {
  const char *name, *weights;
  uint32_t heads, prompt, steps, budget, period;
} golden_case;

typedef struct golden_data {
  const float *prefill_logits, *decode_logits, *predicted, *final_history;
  const int32_t *lens, *predicted_cols;
  const unsigned char *kept;
  float *parameters; /* in file order */
  npy_array arrays[13];
} golden_data;

static inline uint32_t blocks_of(uint32_t tokens) {
  return (tokens + GOLDEN_BLOCK - 1) / GOLDEN_BLOCK;
}

static inline void golden_free(golden_data *g) {
  for (size_t i = 0; i < 13; ++i) npy_free(&g->arrays[i]);
  free(g->parameters);
}

/* The copied cases lie in the project; the published ones only beside it. */
static inline void golden_folder(const char *name, char *path, size_t bytes) {
  if (strncmp(name, "random", 6) == 0) {
    snprintf(path, bytes, "%s/tests/conformance/data/attention_predictor/%s", KVSIFT_SOURCE_ROOT, name);
  } else {
    snprintf(path, bytes, "%s/../shared/golden/attention_predictor/%s", KVSIFT_SOURCE_ROOT, name);
  }
}

static inline int golden_load_parameters(const char *folder, golden_data *g) {
  static const char *const names[] = {"conv1.weight", "conv1.bias",   "conv2.weight",
                                      "conv2.bias",   "conv3.weight", "conv3.bias"};
  size_t used = 0;
  g->parameters = malloc(4833 * sizeof(float));
  for (size_t i = 0; i < 6; ++i) {
    npy_array *a = &g->arrays[7 + i];
    const float *values = npy_load_as(folder, names[i], "f4", a);
    if (values == NULL || used + a->count > 4833) return -1;
    memcpy(g->parameters + used, values, (size_t)a->count * sizeof(float));
    used += (size_t)a->count;
  }
  return used == 4833 ? 0 : -1;
}

/* 0, or -1 where a file is missing. */
static inline int golden_load(const golden_case *c, golden_data *g) {
  char folder[1024], weights[1024];
  memset(g, 0, sizeof *g);
  golden_folder(c->name, folder, sizeof folder);
  golden_folder(c->weights, weights, sizeof weights);
  g->prefill_logits = npy_load_as(folder, "prefill_logits", "f4", &g->arrays[0]);
  g->decode_logits = npy_load_as(folder, "decode_logits", "f4", &g->arrays[1]);
  g->predicted = npy_load_as(folder, "predicted", "f4", &g->arrays[2]);
  g->final_history = npy_load_as(folder, "final_history", "f4", &g->arrays[3]);
  g->lens = npy_load_as(folder, "lens", "i4", &g->arrays[4]);
  g->predicted_cols = npy_load_as(folder, "predicted_cols", "i4", &g->arrays[5]);
  g->kept = npy_load_as(folder, "kept_tokens", "u1", &g->arrays[6]);
  int missing = golden_load_parameters(weights, g);
  for (size_t i = 0; i < 7; ++i) missing |= g->arrays[i].data == NULL;
  if (missing) golden_free(g);
  return missing ? -1 : 0;
}

/* Where a step's entries of a flat array begin, `heads` rows of counts[t] for each step t. */
static inline size_t golden_at(const golden_data *g, const int32_t *counts, uint32_t head,
                               uint32_t step) {
  const size_t heads = (size_t)g->arrays[3].shape[0];
  size_t at = 0;
  for (uint32_t t = 0; t < step; ++t) at += heads * (size_t)counts[t];
  return at + head * (size_t)counts[step];
}

static inline const float *golden_predicted(const golden_data *g, uint32_t head, uint32_t step) {
  return g->predicted + golden_at(g, g->predicted_cols, head, step);
}
static inline const float *golden_decode_row(const golden_data *g, uint32_t head, uint32_t step) {
  return g->decode_logits + golden_at(g, g->lens, head, step);
}
static inline const unsigned char *golden_kept(const golden_data *g, uint32_t head, uint32_t step) {
  return g->kept + golden_at(g, g->lens, head, step);
}
static inline const float *golden_prefill_row(const golden_case *c, const golden_data *g,
                                              uint32_t head, uint32_t row) {
  return g->prefill_logits + ((size_t)head * GOLDEN_ROWS + row) * c->prompt;
}

/* Softmax over the kept tokens (null: all). */
static inline void golden_softmax(const float *logits, const unsigned char *kept, uint32_t tokens,
                                  float *row) {
  double sum = 0, top = -INFINITY;
  for (uint32_t t = 0; t < tokens; ++t) {
    if (kept == NULL || kept[t]) top = fmax(top, (double)logits[t]);
  }
  for (uint32_t t = 0; t < tokens; ++t) {
    if (kept == NULL || kept[t]) sum += exp((double)logits[t] - top);
  }
  for (uint32_t t = 0; t < tokens; ++t) {
    row[t] = kept == NULL || kept[t] ? (float)(exp((double)logits[t] - top) / sum) : 0;
  }
}

/* The largest softmax share of each block. */
static inline void golden_pool(const float *logits, const unsigned char *kept, uint32_t tokens,
                               float *pooled) {
  static float row[GOLDEN_MAX_COLUMNS * GOLDEN_BLOCK];
  golden_softmax(logits, kept, tokens, row);
  for (uint32_t j = 0; j < blocks_of(tokens); ++j) pooled[j] = 0;
  for (uint32_t t = 0; t < tokens; ++t) {
    pooled[t / GOLDEN_BLOCK] = fmaxf(pooled[t / GOLDEN_BLOCK], row[t]);
  }
}

#endif
