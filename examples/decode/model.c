#include "model.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "memory.h"

typedef struct shape_key {
  const char *key;
  uint32_t *out;
  uint32_t least, most;
  bool required;
} shape_key;

static bool check_architecture(const gguf_file *file, failure *why) {
  gguf_string architecture = {"", 0};
  if (!gguf_read_string(file, "general.architecture", &architecture, why)) return false;
  if (!gguf_equals(architecture, "llama")) {
    int length = architecture.length < 40 ? (int)architecture.length : 40;
    return fail(why, "%s: general.architecture is \"%.*s\"; only \"llama\" can be run", file->name,
                length, architecture.bytes);
  }
  uint32_t experts = 0;
  if (!gguf_read_u32(file, "llama.expert_count", &experts, why)) return false;
  if (experts > 0) {
    return fail(why, "%s: llama.expert_count is %" PRIu32 "; mixtures of experts cannot be run",
                file->name, experts);
  }
  return true;
}

static bool read_keys(const gguf_file *file, const shape_key *keys, uint32_t count, failure *why) {
  for (uint32_t i = 0; i < count; i++) {
    if (keys[i].required && gguf_find(file, keys[i].key) == NULL) {
      return fail(why, "%s: key %s is missing", file->name, keys[i].key);
    }
    if (!gguf_read_u32(file, keys[i].key, keys[i].out, why)) return false;
    if (*keys[i].out < keys[i].least || *keys[i].out > keys[i].most) {
      return fail(why, "%s: %s is %" PRIu32 "; expected %" PRIu32 " to %" PRIu32, file->name,
                  keys[i].key, *keys[i].out, keys[i].least, keys[i].most);
    }
  }
  return true;
}

bool model_read_shape(model *out, failure *why) {
  const gguf_file *file = &out->gguf;
  if (!check_architecture(file, why)) return false;
  const shape_key sizes[] = {
      {"llama.block_count", &out->layers, 1, 1024, true},
      {"llama.embedding_length", &out->width, 1, 65536, true},
      {"llama.feed_forward_length", &out->hidden, 1, 1u << 20, true},
      {"llama.attention.head_count", &out->query_heads, 1, 1024, true},
      {"llama.context_length", &out->context, 1, 1u << 24, true},
  };
  if (!read_keys(file, sizes, sizeof sizes / sizeof *sizes, why)) return false;
  out->kv_heads = out->query_heads;
  out->head_dim = out->width / out->query_heads;
  const shape_key heads[] = {
      {"llama.attention.head_count_kv", &out->kv_heads, 1, out->query_heads, false},
      {"llama.attention.key_length", &out->head_dim, 2, 256, false},
  };
  if (!read_keys(file, heads, sizeof heads / sizeof *heads, why)) return false;
  uint32_t value_dim = out->head_dim;
  out->rope_dim = out->head_dim;
  const shape_key dims[] = {
      {"llama.attention.value_length", &value_dim, out->head_dim, out->head_dim, false},
      {"llama.rope.dimension_count", &out->rope_dim, 2, out->head_dim, false},
  };
  if (!read_keys(file, dims, sizeof dims / sizeof *dims, why)) return false;
  if (out->query_heads % out->kv_heads != 0 || out->rope_dim % 2 != 0) {
    return fail(why,
                "%s: %" PRIu32 " query heads over %" PRIu32 " KV heads, %" PRIu32
                " rotated dimensions: heads must divide, dimensions be even",
                file->name, out->query_heads, out->kv_heads, out->rope_dim);
  }
  if (gguf_find(file, "llama.attention.layer_norm_rms_epsilon") == NULL) {
    return fail(why, "%s: key llama.attention.layer_norm_rms_epsilon is missing", file->name);
  }
  return gguf_read_float(file, "llama.attention.layer_norm_rms_epsilon", &out->norm_epsilon, why);
}

/* rope_freqs.weight holds the divisors that Llama 3's long-context scaling comes to. */
static bool read_divisors(const model *m, const float **divisors, failure *why) {
  const gguf_tensor *tensor = gguf_find_tensor(&m->gguf, "rope_freqs.weight");
  *divisors = NULL;
  if (tensor == NULL) return true;
  if (tensor->type != GGML_F32 || tensor->bytes != 4 * (uint64_t)(m->rope_dim / 2)) {
    return fail(
        why,
        "%s: tensor rope_freqs.weight is %s with %" PRIu64 " elements; expected F32 with %" PRIu32,
        m->gguf.name, gguf_tensor_type_name(tensor->type), tensor->shape[0], m->rope_dim / 2);
  }
  *divisors = (const float *)(const void *)tensor->data;
  return true;
}

bool model_read_rope(model *m, failure *why) {
  const gguf_file *file = &m->gguf;
  float base = 10000, factor = 1;
  gguf_string scaling = {"none", 4};
  const float *divisors;
  if (!gguf_read_float(file, "llama.rope.freq_base", &base, why) ||
      !gguf_read_string(file, "llama.rope.scaling.type", &scaling, why) ||
      !read_divisors(m, &divisors, why)) {
    return false;
  }
  if (gguf_equals(scaling, "linear")) {
    if (!gguf_read_float(file, "llama.rope.scaling.factor", &factor, why)) return false;
  } else if (!gguf_equals(scaling, "none") && !(gguf_equals(scaling, "llama3") && divisors)) {
    return fail(why,
                "%s: llama.rope.scaling.type is \"%.*s\"; \"none\", \"linear\" and"
                " rope_freqs.weight can be run",
                file->name, scaling.length < 40 ? (int)scaling.length : 40, scaling.bytes);
  }
  if (!(base > 0 && base < 1e30f && factor > 0 && factor < 1e6f)) {
    return fail(why,
                "%s: llama.rope.freq_base is %g and llama.rope.scaling.factor %g; expected"
                " positive numbers",
                file->name, (double)base, (double)factor);
  }
  m->rope_rates = memory_take(m->rope_dim / 2, sizeof *m->rope_rates);
  if (m->rope_rates == NULL) return fail(why, "no memory for %u rotations", m->rope_dim / 2);
  for (uint32_t i = 0; i < m->rope_dim / 2; i++) {
    double rate = pow(base, -2.0 * i / m->rope_dim) / factor;
    m->rope_rates[i] = (float)(divisors != NULL ? rate / divisors[i] : rate);
  }
  return true;
}

static bool load(model *out, const char *path, failure *why) {
  if (!file_map(&out->file, path, why) ||
      !gguf_parse(&out->gguf, path, out->file.bytes, out->file.size, why) ||
      !model_read_shape(out, why) || !tokenizer_load(&out->tokens, &out->gguf, why)) {
    return false;
  }
  out->vocabulary = out->tokens.count;
  return model_read_rope(out, why) && model_read_weights(out, why);
}

bool model_load(model *out, const char *path, failure *why) {
  memset(out, 0, sizeof *out);
  if (load(out, path, why)) return true;
  model_release(out);
  return false;
}

void model_release(model *out) {
  memory_give(out->rope_rates);
  memory_give(out->layer);
  tokenizer_release(&out->tokens);
  gguf_release(&out->gguf);
  file_unmap(&out->file);
  memset(out, 0, sizeof *out);
}
