/* Writes GGUF files in memory, right or wrong ones, for the tests of their reader. */
#ifndef TESTS_GGUF_BUILDER_H
#define TESTS_GGUF_BUILDER_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "gguf.h"

typedef struct gguf_builder {
  uint8_t *bytes;
  uint64_t size, capacity;
  uint64_t key_count_at, tensor_count_at; /* where the header's counts lie */
  uint64_t keys, tensors;
  uint64_t data_bytes; /* promised by the tensors so far */
} gguf_builder;

static inline void put(gguf_builder *b, const void *from, uint64_t bytes) {
  if (b->size + bytes > b->capacity) {
    b->capacity = 2 * (b->size + bytes) + 256;
    b->bytes = realloc(b->bytes, b->capacity);
    if (b->bytes == NULL) abort();
  }
  if (bytes > 0) memcpy(b->bytes + b->size, from, bytes);
  b->size += bytes;
}

static inline void put_u32(gguf_builder *b, uint32_t v) { put(b, &v, 4); }
static inline void put_u64(gguf_builder *b, uint64_t v) { put(b, &v, 8); }

static inline void put_string(gguf_builder *b, const char *text) {
  put_u64(b, strlen(text));
  put(b, text, strlen(text));
}

static inline void put_header(gguf_builder *b, uint32_t version) {
  put(b, "GGUF", 4);
  put_u32(b, version);
  b->tensor_count_at = b->size;
  put_u64(b, 0);
  b->key_count_at = b->size;
  put_u64(b, 0);
}

static inline void put_key(gguf_builder *b, const char *key, uint32_t type) {
  put_string(b, key);
  put_u32(b, type);
  b->keys++;
}

static inline void put_key_u32(gguf_builder *b, const char *key, uint32_t value) {
  put_key(b, key, GGUF_U32);
  put_u32(b, value);
}

static inline void put_key_float(gguf_builder *b, const char *key, float value) {
  put_key(b, key, GGUF_FLOAT32);
  put(b, &value, 4);
}

static inline void put_key_bool(gguf_builder *b, const char *key, uint8_t value) {
  put_key(b, key, GGUF_BOOL);
  put(b, &value, 1);
}

static inline void put_key_string(gguf_builder *b, const char *key, const char *value) {
  put_key(b, key, GGUF_STRING);
  put_string(b, value);
}

static inline void put_key_array(gguf_builder *b, const char *key, uint32_t type, uint64_t count) {
  put_key(b, key, GGUF_ARRAY);
  put_u32(b, type);
  put_u64(b, count);
}

/* Announces a tensor; its data is laid out in the order of the calls. */
static inline void put_tensor(gguf_builder *b, const char *name, uint32_t type, uint32_t dimensions,
                              const uint64_t *shape) {
  uint64_t rows = 1;
  put_string(b, name);
  put_u32(b, dimensions);
  for (uint32_t i = 0; i < dimensions; i++) put_u64(b, shape[i]);
  for (uint32_t i = 1; i < dimensions; i++) rows *= shape[i];
  put_u32(b, type);
  put_u64(b, b->data_bytes);
  b->data_bytes = (b->data_bytes + rows * gguf_row_bytes(type, shape[0]) + 31) / 32 * 32;
  b->tensors++;
}

/* Fills in the counts and pads to where the data begins; the data is put after it. */
static inline void finish_header(gguf_builder *b) {
  memcpy(b->bytes + b->tensor_count_at, &b->tensors, 8);
  memcpy(b->bytes + b->key_count_at, &b->keys, 8);
  while (b->size % 32 != 0) put(b, "", 1);
}

static inline void drop(gguf_builder *b) {
  free(b->bytes);
  memset(b, 0, sizeof *b);
}

/* Parses a copy that ends where the bytes end, so that a sanitizer sees every byte read beyond
 * them. */
static inline bool parse_copy(const uint8_t *bytes, uint64_t size, gguf_file *file, void **copy,
                              failure *why) {
  uint8_t *room = NULL;
  void *aligned = NULL;
  if (posix_memalign(&aligned, 64, size > 0 ? size : 1) != 0) abort();
  room = aligned;
  if (size > 0) memcpy(room, bytes, size);
  *copy = room;
  return gguf_parse(file, "test.gguf", room, size, why);
}

#endif
