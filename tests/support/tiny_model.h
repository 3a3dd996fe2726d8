/* A llama model of random weights, small enough to be made for each test. */
#ifndef TESTS_TINY_MODEL_H
#define TESTS_TINY_MODEL_H

#include <stdio.h>
#include <unistd.h>

#include "gguf_builder.h"
#include "kernels.h"
#include "random.h"

enum {
  TINY_LAYERS = 2,
  TINY_WIDTH = 32,
  TINY_HIDDEN = 64,
  TINY_HEADS = 4,
  TINY_KV_HEADS = 2,
  TINY_DIM = 16,
  TINY_PIECES = 40,
  TINY_CONTEXT = 512
};

/* A change to the model that makes it wrong. */
typedef struct tiny_flaw {
  const char *left_out;   /* this tensor is missing */
  const char *other_type; /* this one has type 12, Q4_K */
  const char *transposed; /* this one has its shape the wrong way round */
} tiny_flaw;

static inline void tiny_keys(gguf_builder *b) {
  put_key_string(b, "general.architecture", "llama");
  put_key_u32(b, "llama.block_count", TINY_LAYERS);
  put_key_u32(b, "llama.embedding_length", TINY_WIDTH);
  put_key_u32(b, "llama.feed_forward_length", TINY_HIDDEN);
  put_key_u32(b, "llama.attention.head_count", TINY_HEADS);
  put_key_u32(b, "llama.attention.head_count_kv", TINY_KV_HEADS);
  put_key_u32(b, "llama.attention.key_length", TINY_DIM);
  put_key_u32(b, "llama.attention.value_length", TINY_DIM);
  put_key_u32(b, "llama.context_length", TINY_CONTEXT);
  put_key_float(b, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
  put_key_string(b, "tokenizer.ggml.model", "llama");
  put_key_array(b, "tokenizer.ggml.tokens", GGUF_STRING, TINY_PIECES);
  for (uint32_t i = 0; i < TINY_PIECES; i++) {
    char piece[8];
    snprintf(piece, sizeof piece, "t%u", i);
    put_string(b, piece);
  }
  put_key_array(b, "tokenizer.ggml.scores", GGUF_FLOAT32, TINY_PIECES);
  for (uint32_t i = 0; i < TINY_PIECES; i++) put_u32(b, 0);
}

typedef struct tiny_tensor {
  char name[64];
  uint32_t type, columns, rows; /* 1 row: a vector of ones */
} tiny_tensor;

static inline uint32_t tiny_tensors(tiny_tensor *out, uint32_t type) {
  static const struct {
    const char *name;
    uint32_t columns, rows;
  } parts[] = {{"attn_norm", TINY_WIDTH, 1},
               {"ffn_norm", TINY_WIDTH, 1},
               {"attn_q", TINY_WIDTH, TINY_HEADS * TINY_DIM},
               {"attn_k", TINY_WIDTH, TINY_KV_HEADS * TINY_DIM},
               {"attn_v", TINY_WIDTH, TINY_KV_HEADS * TINY_DIM},
               {"attn_output", TINY_HEADS * TINY_DIM, TINY_WIDTH},
               {"ffn_gate", TINY_WIDTH, TINY_HIDDEN},
               {"ffn_up", TINY_WIDTH, TINY_HIDDEN},
               {"ffn_down", TINY_HIDDEN, TINY_WIDTH}};
  uint32_t count = 0;
  out[count++] = (tiny_tensor){"token_embd.weight", type, TINY_WIDTH, TINY_PIECES};
  out[count++] = (tiny_tensor){"output_norm.weight", GGML_F32, TINY_WIDTH, 1};
  for (uint32_t layer = 0; layer < TINY_LAYERS; layer++) {
    for (uint32_t i = 0; i < sizeof parts / sizeof *parts; i++) {
      tiny_tensor *t = &out[count++];
      snprintf(t->name, sizeof t->name, "blk.%u.%s.weight", layer, parts[i].name);
      t->type = parts[i].rows == 1 ? (uint32_t)GGML_F32 : type;
      t->columns = parts[i].columns;
      t->rows = parts[i].rows;
    }
  }
  return count;
}

static inline void tiny_data(gguf_builder *b, const tiny_tensor *t, test_random *random) {
  for (uint64_t i = 0; i < (uint64_t)t->rows * t->columns; i++) {
    float value = t->rows == 1 ? 1 : (random_unit(random) - 0.5f) * 0.8f;
    uint16_t half = float_to_half(value), bfloat = float_to_bfloat(value);
    if (t->type == GGML_F32) put(b, &value, 4);
    if (t->type == GGML_F16) put(b, &half, 2);
    if (t->type == GGML_BF16) put(b, &bfloat, 2);
    if (t->type == GGML_Q8_0) {
      uint16_t scale = float_to_half(0.4f / 127);
      int8_t quant = (int8_t)(value / 0.4f * 127);
      if (i % GGML_Q8_0_BLOCK == 0) put(b, &scale, 2);
      put(b, &quant, 1);
    }
  }
  while (b->size % 32 != 0) put(b, "", 1);
}

/* Writes the model to a new file and its path to `path`. */
static inline void tiny_model_write(char path[64], uint32_t type, tiny_flaw flaw) {
  gguf_builder b = {0};
  tiny_tensor tensors[32];
  test_random random = {5};
  put_header(&b, 3);
  tiny_keys(&b);
  uint32_t count = tiny_tensors(tensors, type);
  for (uint32_t i = 0; i < count; i++) {
    const tiny_tensor *t = &tensors[i];
    bool turned = flaw.transposed != NULL && strcmp(flaw.transposed, t->name) == 0;
    bool other = flaw.other_type != NULL && strcmp(flaw.other_type, t->name) == 0;
    bool gone = flaw.left_out != NULL && strcmp(flaw.left_out, t->name) == 0;
    uint64_t shape[] = {turned ? t->rows : t->columns, turned ? t->columns : t->rows};
    put_tensor(&b, gone ? "something.else" : t->name, other ? 12 : t->type, t->rows == 1 ? 1 : 2,
               shape);
    if (other) b.data_bytes += (uint64_t)t->rows * gguf_row_bytes(t->type, t->columns);
  }
  finish_header(&b);
  for (uint32_t i = 0; i < count; i++) tiny_data(&b, &tensors[i], &random);
  strcpy(path, "tiny_model_XXXXXX");
  int descriptor = mkstemp(path);
  if (descriptor < 0 || write(descriptor, b.bytes, b.size) != (ssize_t)b.size) abort();
  close(descriptor);
  drop(&b);
}

#endif
