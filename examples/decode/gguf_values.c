#include <inttypes.h>
#include <string.h>

#include "gguf.h"

static const char *const value_type_names[GGUF_VALUE_TYPES] = {
    "uint8", "int8",   "uint16", "int16",  "uint32", "int32",  "float32",
    "bool",  "string", "array",  "uint64", "int64",  "float64"};

static const char *const tensor_type_names[] = {
    "F32",     "F16",    "Q4_0",    "Q4_1",  "Q4_2",   "Q4_3",  "Q5_0",  "Q5_1",
    "Q8_0",    "Q8_1",   "Q2_K",    "Q3_K",  "Q4_K",   "Q5_K",  "Q6_K",  "Q8_K",
    "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ4_NL", "IQ3_S", "IQ2_S", "IQ4_XS",
    "I8",      "I16",    "I32",     "I64",   "F64",    "IQ1_M", "BF16"};

bool gguf_equals(gguf_string text, const char *other) {
  return text.length == strlen(other) && memcmp(text.bytes, other, text.length) == 0;
}

const char *gguf_tensor_type_name(uint32_t type) {
  uint32_t known = sizeof tensor_type_names / sizeof *tensor_type_names;
  return type < known ? tensor_type_names[type] : "unknown";
}

uint64_t gguf_row_bytes(uint32_t type, uint64_t elements) {
  if (elements > UINT32_MAX) return 0;
  switch (type) {
    case GGML_F32:
      return elements * 4;
    case GGML_F16:
    case GGML_BF16:
      return elements * 2;
    case GGML_Q8_0:
      return elements % GGML_Q8_0_BLOCK == 0 ? elements / GGML_Q8_0_BLOCK * 34 : 0;
    default:
      return 0;
  }
}

const gguf_value *gguf_find(const gguf_file *file, const char *key) {
  for (uint64_t i = 0; i < file->value_count; i++) {
    if (gguf_equals(file->values[i].key, key)) return &file->values[i];
  }
  return NULL;
}

const gguf_tensor *gguf_find_tensor(const gguf_file *file, const char *name) {
  for (uint64_t i = 0; i < file->tensor_count; i++) {
    if (gguf_equals(file->tensors[i].name, name)) return &file->tensors[i];
  }
  return NULL;
}

static bool wrong_kind(const gguf_file *file, const gguf_value *value, const char *expected,
                       failure *why) {
  return fail(why, "%s: key %.*s is %s%s; expected %s", file->name, (int)value->key.length,
              value->key.bytes, value->is_array ? "an array of " : "",
              value_type_names[value->type], expected);
}

/* Any integer type; a uint64 from 2^63 on comes out negative. */
static bool as_integer(const gguf_value *value, int64_t *out) {
  union {
    uint8_t u8;
    int8_t i8;
    uint16_t u16;
    int16_t i16;
    uint32_t u32;
    int32_t i32;
    uint64_t u64;
    int64_t i64;
  } v = {0};
  if (value->is_array) return false;
  switch (value->type) {
    case GGUF_U8:
      memcpy(&v, value->data, 1);
      *out = v.u8;
      return true;
    case GGUF_I8:
      memcpy(&v, value->data, 1);
      *out = v.i8;
      return true;
    case GGUF_U16:
      memcpy(&v, value->data, 2);
      *out = v.u16;
      return true;
    case GGUF_I16:
      memcpy(&v, value->data, 2);
      *out = v.i16;
      return true;
    case GGUF_U32:
      memcpy(&v, value->data, 4);
      *out = v.u32;
      return true;
    case GGUF_I32:
      memcpy(&v, value->data, 4);
      *out = v.i32;
      return true;
    case GGUF_U64:
      memcpy(&v, value->data, 8);
      *out = (int64_t)v.u64;
      return true;
    case GGUF_I64:
      memcpy(&v, value->data, 8);
      *out = v.i64;
      return true;
    default:
      return false;
  }
}

bool gguf_read_u32(const gguf_file *file, const char *key, uint32_t *out, failure *why) {
  const gguf_value *value = gguf_find(file, key);
  int64_t number;
  if (value == NULL) return true;
  if (!as_integer(value, &number)) return wrong_kind(file, value, "one integer", why);
  if (number < 0 || number > (int64_t)UINT32_MAX) {
    char digits[24];
    if (value->type == GGUF_U64) {
      snprintf(digits, sizeof digits, "%" PRIu64, (uint64_t)number);
    } else {
      snprintf(digits, sizeof digits, "%" PRId64, number);
    }
    return fail(why, "%s: key %s is %s; expected 0 to 4294967295", file->name, key, digits);
  }
  *out = (uint32_t)number;
  return true;
}

bool gguf_read_float(const gguf_file *file, const char *key, float *out, failure *why) {
  const gguf_value *value = gguf_find(file, key);
  if (value == NULL) return true;
  if (!value->is_array && value->type == GGUF_FLOAT32) {
    memcpy(out, value->data, sizeof *out);
    return true;
  }
  if (!value->is_array && value->type == GGUF_FLOAT64) {
    double wide;
    memcpy(&wide, value->data, sizeof wide);
    *out = (float)wide;
    return true;
  }
  return wrong_kind(file, value, "one float", why);
}

bool gguf_read_bool(const gguf_file *file, const char *key, bool *out, failure *why) {
  const gguf_value *value = gguf_find(file, key);
  if (value == NULL) return true;
  if (value->is_array || value->type != GGUF_BOOL) return wrong_kind(file, value, "a bool", why);
  *out = *value->data != 0;
  return true;
}

bool gguf_read_string(const gguf_file *file, const char *key, gguf_string *out, failure *why) {
  const gguf_value *value = gguf_find(file, key);
  if (value == NULL) return true;
  if (value->is_array || value->type != GGUF_STRING) {
    return wrong_kind(file, value, "a string", why);
  }
  const uint8_t *cursor = value->data;
  *out = gguf_next_string(&cursor);
  return true;
}

gguf_string gguf_next_string(const uint8_t **cursor) {
  gguf_string text;
  memcpy(&text.length, *cursor, 8);
  text.bytes = (const char *)*cursor + 8;
  *cursor += 8 + text.length;
  return text;
}
