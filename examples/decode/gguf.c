#include "gguf.h"

#include <inttypes.h>
#include <string.h>

#include "memory.h"

/* The least bytes a key and its value, or a tensor's entry, can take: they bound the counts of a
 * header. */
#define LEAST_VALUE_BYTES 14u
#define LEAST_TENSOR_BYTES 32u
#define MOST_NAME_BYTES 65535u

static const uint8_t value_bytes[GGUF_VALUE_TYPES] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

typedef struct reader {
  const gguf_file *file;
  uint64_t position;
  failure *why;
} reader;

static bool have(reader *in, uint64_t bytes, const char *what) {
  uint64_t left = in->file->size - in->position;
  if (bytes <= left) return true;
  return fail(in->why,
              "%s: cut short: %s at byte %" PRIu64 " needs %" PRIu64 " bytes, %" PRIu64 " are left",
              in->file->name, what, in->position, bytes, left);
}

static bool read_number(reader *in, void *out, uint64_t bytes, const char *what) {
  if (!have(in, bytes, what)) return false;
  memcpy(out, in->file->bytes + in->position, bytes);
  in->position += bytes;
  return true;
}

static bool read_string(reader *in, gguf_string *out, const char *what) {
  if (!read_number(in, &out->length, 8, what)) return false;
  if (!have(in, out->length, what)) return false;
  out->bytes = (const char *)in->file->bytes + in->position;
  in->position += out->length;
  return true;
}

static bool read_name(reader *in, gguf_string *out, const char *what) {
  uint64_t at = in->position;
  if (!read_string(in, out, what)) return false;
  if (out->length >= 1 && out->length <= MOST_NAME_BYTES) return true;
  return fail(in->why, "%s: %s at byte %" PRIu64 " has %" PRIu64 " bytes; expected 1 to %u",
              in->file->name, what, at, out->length, MOST_NAME_BYTES);
}

static int shown(gguf_string text) { return text.length < 100 ? (int)text.length : 100; }

static bool skip_elements(reader *in, gguf_value *value) {
  char what[160];
  snprintf(what, sizeof what, "the value of key %.*s", shown(value->key), value->key.bytes);
  value->data = in->file->bytes + in->position;
  if (value->type == GGUF_STRING) {
    gguf_string ignored;
    for (uint64_t i = 0; i < value->count; i++) {
      if (!read_string(in, &ignored, what)) return false;
    }
    return true;
  }
  uint64_t each = value_bytes[value->type];
  if (value->count > in->file->size / each) {
    return fail(in->why, "%s: %s claims %" PRIu64 " elements, more than the file has bytes",
                in->file->name, what, value->count);
  }
  if (!have(in, value->count * each, what)) return false;
  in->position += value->count * each;
  return true;
}

static bool read_value(reader *in, gguf_value *value) {
  if (!read_name(in, &value->key, "a key")) return false;
  uint64_t at = in->position;
  if (!read_number(in, &value->type, 4, "a value's type")) return false;
  value->count = 1;
  value->is_array = value->type == GGUF_ARRAY;
  if (value->is_array && (!read_number(in, &value->type, 4, "an array's element type") ||
                          !read_number(in, &value->count, 8, "an array's length"))) {
    return false;
  }
  if (value->type >= GGUF_VALUE_TYPES || value->type == GGUF_ARRAY) {
    return fail(in->why,
                "%s: key %.*s at byte %" PRIu64 " has %s type %" PRIu32 "; expected 0 to 12%s",
                in->file->name, shown(value->key), value->key.bytes, at,
                value->is_array ? "element" : "value", value->type,
                value->is_array ? " and no array of arrays" : "");
  }
  return skip_elements(in, value);
}

static bool read_tensor(reader *in, gguf_tensor *tensor) {
  if (!read_name(in, &tensor->name, "a tensor's name")) return false;
  if (!read_number(in, &tensor->dimensions, 4, "a tensor's dimension count")) return false;
  if (tensor->dimensions < 1 || tensor->dimensions > 4) {
    return fail(in->why, "%s: tensor %.*s has %" PRIu32 " dimensions; expected 1 to 4",
                in->file->name, shown(tensor->name), tensor->name.bytes, tensor->dimensions);
  }
  for (uint32_t i = 0; i < 4; i++) tensor->shape[i] = 1;
  for (uint32_t i = 0; i < tensor->dimensions; i++) {
    if (!read_number(in, &tensor->shape[i], 8, "a tensor's shape")) return false;
  }
  return read_number(in, &tensor->type, 4, "a tensor's type") &&
         read_number(in, &tensor->offset, 8, "a tensor's offset");
}

/* Points the tensor at its data, once the alignment and with it the start of the data is known. */
static bool place_tensor(const gguf_file *file, gguf_tensor *tensor, uint64_t start,
                         uint32_t alignment, failure *why) {
  const char *name = tensor->name.bytes;
  int width = shown(tensor->name);
  uint64_t room = file->size - start;
  if (tensor->offset % alignment != 0 || tensor->offset > room) {
    return fail(why,
                "%s: tensor %.*s has offset %" PRIu64 "; expected a multiple of %" PRIu32
                " below %" PRIu64,
                file->name, width, name, tensor->offset, alignment, room);
  }
  uint64_t rows = 1;
  for (uint32_t i = 0; i < 4; i++) {
    if (tensor->shape[i] == 0 || tensor->shape[i] > UINT32_MAX / rows) {
      return fail(why,
                  "%s: tensor %.*s has %" PRIu64
                  " as dimension %u; expected 1 or more, and"
                  " fewer than 2^32 %s",
                  file->name, width, name, tensor->shape[i], i, i == 0 ? "elements a row" : "rows");
    }
    if (i > 0) rows *= tensor->shape[i];
  }
  tensor->data = file->bytes + start + tensor->offset;
  uint64_t row_bytes = gguf_row_bytes(tensor->type, tensor->shape[0]);
  if (row_bytes == 0) return true; /* told apart when somebody asks for this tensor */
  room -= tensor->offset;
  if (row_bytes > room / rows) {
    return fail(why,
                "%s: cut short: tensor %.*s needs %" PRIu64 " rows of %" PRIu64
                " bytes at byte %" PRIu64 ", %" PRIu64 " bytes are left",
                file->name, width, name, rows, row_bytes, start + tensor->offset, room);
  }
  tensor->bytes = row_bytes * rows;
  return true;
}

static bool read_header(reader *in, gguf_file *file) {
  char magic[4];
  if (!read_number(in, magic, 4, "the magic")) return false;
  if (memcmp(magic, "GGUF", 4) != 0) {
    return fail(in->why,
                "%s: not a GGUF file: it begins with bytes %02x %02x %02x %02x, expected"
                " 47 47 55 46",
                file->name, (unsigned char)magic[0], (unsigned char)magic[1],
                (unsigned char)magic[2], (unsigned char)magic[3]);
  }
  if (!read_number(in, &file->version, 4, "the version")) return false;
  if (file->version != 2 && file->version != 3) {
    bool swapped = file->version != 0 && (file->version & 0xffffffu) == 0;
    return fail(in->why, "%s: GGUF version %" PRIu32 "%s; versions 2 and 3 can be read", file->name,
                file->version, swapped ? " (a big-endian file)" : "");
  }
  if (!read_number(in, &file->tensor_count, 8, "the tensor count") ||
      !read_number(in, &file->value_count, 8, "the key count")) {
    return false;
  }
  if (file->value_count > file->size / LEAST_VALUE_BYTES ||
      file->tensor_count > file->size / LEAST_TENSOR_BYTES) {
    return fail(in->why,
                "%s: claims %" PRIu64 " keys and %" PRIu64 " tensors, more than its %" PRIu64
                " bytes can hold",
                file->name, file->value_count, file->tensor_count, file->size);
  }
  return true;
}

static bool find_data(reader *in, const gguf_file *file, uint64_t *start, uint32_t *alignment) {
  *alignment = 32;
  if (!gguf_read_u32(file, "general.alignment", alignment, in->why)) return false;
  if (*alignment < 8 || *alignment > 65536 || (*alignment & (*alignment - 1)) != 0) {
    return fail(in->why,
                "%s: general.alignment is %" PRIu32 "; expected a power of two from 8 to 65536",
                file->name, *alignment);
  }
  *start = (in->position + *alignment - 1) / *alignment * *alignment;
  if (*start > file->size) *start = file->size; /* a file of keys alone may end unpadded */
  return true;
}

static bool parse(gguf_file *file, failure *why) {
  reader in = {file, 0, why};
  if (!read_header(&in, file)) return false;
  file->values = memory_take(file->value_count, sizeof *file->values);
  file->tensors = memory_take(file->tensor_count, sizeof *file->tensors);
  if (file->values == NULL || file->tensors == NULL) {
    return fail(why, "%s: no memory for %" PRIu64 " keys and %" PRIu64 " tensors", file->name,
                file->value_count, file->tensor_count);
  }
  for (uint64_t i = 0; i < file->value_count; i++) {
    if (!read_value(&in, &file->values[i])) return false;
  }
  for (uint64_t i = 0; i < file->tensor_count; i++) {
    if (!read_tensor(&in, &file->tensors[i])) return false;
  }
  uint64_t start = 0;
  uint32_t alignment = 0;
  if (!find_data(&in, file, &start, &alignment)) return false;
  for (uint64_t i = 0; i < file->tensor_count; i++) {
    if (!place_tensor(file, &file->tensors[i], start, alignment, why)) return false;
  }
  return true;
}

bool gguf_parse(gguf_file *file, const char *name, const void *bytes, uint64_t size, failure *why) {
  memset(file, 0, sizeof *file);
  file->name = name;
  file->bytes = bytes;
  file->size = size;
  if (parse(file, why)) return true;
  gguf_release(file);
  return false;
}

void gguf_release(gguf_file *file) {
  memory_give(file->values);
  memory_give(file->tensors);
  memset(file, 0, sizeof *file);
}
