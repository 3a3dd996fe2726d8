#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "memory.h"
#include "model.h"

#define NAME_BYTES 64

static bool check_readable(const model *m, const gguf_tensor *tensor, const char *name,
                           failure *why) {
  if (tensor == NULL) return fail(why, "%s: tensor %s is missing", m->gguf.name, name);
  if (tensor->bytes != 0) return true;
  if (tensor->type == GGML_Q8_0) {
    return fail(
        why, "%s: tensor %s is Q8_0 with rows of %" PRIu64 " elements; expected a multiple of 32",
        m->gguf.name, name, tensor->shape[0]);
  }
  return fail(why,
              "%s: cannot read type %s (%" PRIu32
              ") of tensor %s; F32, F16, BF16 and Q8_0 can be read",
              m->gguf.name, gguf_tensor_type_name(tensor->type), tensor->type, name);
}

static bool find_matrix(const model *m, matrix *out, const char *name, uint32_t rows,
                        uint32_t columns, failure *why) {
  const gguf_tensor *tensor = gguf_find_tensor(&m->gguf, name);
  if (!check_readable(m, tensor, name, why)) return false;
  if (tensor->dimensions != 2 || tensor->shape[0] != columns || tensor->shape[1] != rows) {
    return fail(why, "%s: tensor %s is %" PRIu64 " x %" PRIu64 "; expected %" PRIu32 " x %" PRIu32,
                m->gguf.name, name, tensor->shape[0], tensor->shape[1], columns, rows);
  }
  *out = (matrix){tensor->data, tensor->type, rows, columns, gguf_row_bytes(tensor->type, columns)};
  return true;
}

static bool find_vector(const model *m, const float **out, const char *name, uint32_t count,
                        bool required, failure *why) {
  const gguf_tensor *tensor = gguf_find_tensor(&m->gguf, name);
  *out = NULL;
  if (tensor == NULL && !required) return true;
  if (!check_readable(m, tensor, name, why)) return false;
  if (tensor->type != GGML_F32 || tensor->shape[0] != count ||
      tensor->bytes != 4 * (uint64_t)count) {
    return fail(why, "%s: tensor %s is %s with %" PRIu64 " elements; expected F32 with %" PRIu32,
                m->gguf.name, name, gguf_tensor_type_name(tensor->type), tensor->shape[0], count);
  }
  *out = (const float *)(const void *)tensor->data;
  return true;
}

static bool read_layer(const model *m, model_layer *layer, uint32_t index, failure *why) {
  uint32_t queries = m->query_heads * m->head_dim, keys = m->kv_heads * m->head_dim;
  const struct {
    const char *name;
    matrix *out;
    uint32_t rows, columns;
  } matrices[] = {{"attn_q.weight", &layer->query, queries, m->width},
                  {"attn_k.weight", &layer->key, keys, m->width},
                  {"attn_v.weight", &layer->value, keys, m->width},
                  {"attn_output.weight", &layer->output, m->width, queries},
                  {"ffn_gate.weight", &layer->gate, m->hidden, m->width},
                  {"ffn_up.weight", &layer->up, m->hidden, m->width},
                  {"ffn_down.weight", &layer->down, m->width, m->hidden}};
  const struct {
    const char *name;
    const float **out;
    uint32_t count;
    bool required;
  } vectors[] = {{"attn_norm.weight", &layer->attention_norm, m->width, true},
                 {"ffn_norm.weight", &layer->feed_norm, m->width, true},
                 {"attn_q.bias", &layer->query_bias, queries, false},
                 {"attn_k.bias", &layer->key_bias, keys, false},
                 {"attn_v.bias", &layer->value_bias, keys, false},
                 {"attn_output.bias", &layer->output_bias, m->width, false}};
  char name[NAME_BYTES];
  for (uint32_t i = 0; i < sizeof matrices / sizeof *matrices; i++) {
    snprintf(name, sizeof name, "blk.%" PRIu32 ".%s", index, matrices[i].name);
    if (!find_matrix(m, matrices[i].out, name, matrices[i].rows, matrices[i].columns, why)) {
      return false;
    }
  }
  for (uint32_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
    snprintf(name, sizeof name, "blk.%" PRIu32 ".%s", index, vectors[i].name);
    if (!find_vector(m, vectors[i].out, name, vectors[i].count, vectors[i].required, why)) {
      return false;
    }
  }
  return true;
}

bool model_read_weights(model *m, failure *why) {
  m->layer = memory_take(m->layers, sizeof *m->layer);
  if (m->layer == NULL) return fail(why, "no memory for %" PRIu32 " layers", m->layers);
  if (!find_matrix(m, &m->embedding, "token_embd.weight", m->vocabulary, m->width, why) ||
      !find_vector(m, &m->final_norm, "output_norm.weight", m->width, true, why)) {
    return false;
  }
  m->unembedding = m->embedding;
  if (gguf_find_tensor(&m->gguf, "output.weight") != NULL &&
      !find_matrix(m, &m->unembedding, "output.weight", m->vocabulary, m->width, why)) {
    return false;
  }
  for (uint32_t i = 0; i < m->layers; i++) {
    if (!read_layer(m, &m->layer[i], i, why)) return false;
  }
  return true;
}
