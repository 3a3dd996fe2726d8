/* A model of the llama architecture: its shape and its weights, which stay where the GGUF file has
 * them. */
#ifndef DECODE_MODEL_H
#define DECODE_MODEL_H

#include "file.h"
#include "gguf.h"
#include "tokenizer.h"

typedef struct matrix {
  const void *data;
  uint32_t type;    /* GGML_* */
  uint32_t rows;    /* outputs */
  uint32_t columns; /* inputs */
  uint64_t row_bytes;
} matrix;

typedef struct model_layer {
  const float *attention_norm, *feed_norm;
  matrix query, key, value, output;
  const float *query_bias, *key_bias, *value_bias, *output_bias; /* null where the model has none */
  matrix gate, up, down;
} model_layer;

typedef struct model {
  mapped_file file;
  gguf_file gguf;
  tokenizer tokens;
  uint32_t layers, width, hidden, query_heads, kv_heads, head_dim, vocabulary, context;
  uint32_t rope_dim; /* leading dimensions of a head that are rotated */
  float norm_epsilon;
  float *rope_rates; /* [rope_dim / 2] radians a token */
  matrix embedding, unembedding;
  const float *final_norm;
  model_layer *layer;
} model;

bool model_load(model *out, const char *path, failure *why);
void model_release(model *out);

/* Steps of model_load. */
bool model_read_shape(model *out, failure *why);
bool model_read_rope(model *out, failure *why);
bool model_read_weights(model *out, failure *why);

#endif
