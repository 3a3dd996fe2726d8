/* GGUF files, versions 2 and 3, little-endian. The reader works on bytes in memory and trusts none
 * of them: what it returns points into those bytes, every length and offset checked. */
#ifndef DECODE_GGUF_H
#define DECODE_GGUF_H

#include <stdbool.h>
#include <stdint.h>

#include "failure.h"

typedef struct gguf_string {
  const char *bytes; /* not terminated */
  uint64_t length;
} gguf_string;

enum {
  GGUF_U8,
  GGUF_I8,
  GGUF_U16,
  GGUF_I16,
  GGUF_U32,
  GGUF_I32,
  GGUF_FLOAT32,
  GGUF_BOOL,
  GGUF_STRING,
  GGUF_ARRAY,
  GGUF_U64,
  GGUF_I64,
  GGUF_FLOAT64,
  GGUF_VALUE_TYPES
};

typedef struct gguf_value {
  gguf_string key;
  uint32_t type; /* of the elements, for an array */
  uint32_t is_array;
  uint64_t count; /* elements; 1 unless an array */
  const uint8_t *data;
} gguf_value;

enum { GGML_F32 = 0, GGML_F16 = 1, GGML_Q8_0 = 8, GGML_BF16 = 30 };
#define GGML_Q8_0_BLOCK 32u /* elements of a block: one f16 scale, then 32 int8 */

typedef struct gguf_tensor {
  gguf_string name;
  uint32_t type; /* GGML_*, or a number this reader cannot size */
  uint32_t dimensions;
  uint64_t shape[4]; /* shape[0] runs fastest; 1 beyond `dimensions` */
  uint64_t offset;   /* from the start of the data */
  const uint8_t *data;
  uint64_t bytes; /* 0 where the type is not one of GGML_* */
} gguf_tensor;

typedef struct gguf_file {
  const char *name; /* for messages */
  const uint8_t *bytes;
  uint64_t size;
  uint32_t version;
  uint64_t value_count;
  uint64_t tensor_count;
  gguf_value *values;
  gguf_tensor *tensors;
} gguf_file;

/* `bytes` must start at a multiple of 64 and outlive `file`. On failure nothing needs to be
 * released. */
bool gguf_parse(gguf_file *file, const char *name, const void *bytes, uint64_t size, failure *why);
void gguf_release(gguf_file *file);

const gguf_value *gguf_find(const gguf_file *file, const char *key);
const gguf_tensor *gguf_find_tensor(const gguf_file *file, const char *name);

/* Read one value. An absent key leaves *out as it was; a value of another kind or size is a
 * failure. */
bool gguf_read_u32(const gguf_file *file, const char *key, uint32_t *out, failure *why);
bool gguf_read_float(const gguf_file *file, const char *key, float *out, failure *why);
bool gguf_read_bool(const gguf_file *file, const char *key, bool *out, failure *why);
bool gguf_read_string(const gguf_file *file, const char *key, gguf_string *out, failure *why);

/* Takes the string at *cursor, which must lie within a checked array of strings, and moves on. */
gguf_string gguf_next_string(const uint8_t **cursor);

bool gguf_equals(gguf_string text, const char *other);
const char *gguf_tensor_type_name(
    uint32_t type); /* "Q4_K"; "unknown" for a number never assigned */
uint64_t gguf_row_bytes(uint32_t type, uint64_t elements); /* 0: not readable, or no whole blocks */

#endif
