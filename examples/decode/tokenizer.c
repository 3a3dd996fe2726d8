#include "tokenizer.h"

#include <inttypes.h>
#include <string.h>

#include "memory.h"

#define MOST_PIECES (1u << 24)
#define SPACE "\xe2\x96\x81"
#define SPACE_BYTES 3u

static uint32_t hash(const char *bytes, uint64_t length) {
  uint32_t h = 2166136261u;
  for (uint64_t i = 0; i < length; i++) h = (h ^ (uint8_t)bytes[i]) * 16777619u;
  return h ^ h >> 15;
}

static bool same(gguf_string piece, const char *bytes, uint64_t length) {
  return piece.length == length && memcmp(piece.bytes, bytes, length) == 0;
}

uint32_t tokenizer_find(const tokenizer *with, const char *bytes, uint64_t length) {
  for (uint32_t slot = hash(bytes, length) & with->slot_mask;;
       slot = (slot + 1) & with->slot_mask) {
    uint32_t token = with->slots[slot];
    if (token == NO_TOKEN || same(with->pieces[token], bytes, length)) return token;
  }
}

static void index_piece(tokenizer *out, uint32_t token) {
  gguf_string piece = out->pieces[token];
  uint32_t slot = hash(piece.bytes, piece.length) & out->slot_mask;
  while (out->slots[slot] != NO_TOKEN) {
    if (same(out->pieces[out->slots[slot]], piece.bytes, piece.length)) return;
    slot = (slot + 1) & out->slot_mask;
  }
  out->slots[slot] = token;
}

static bool hex_digit(char c, uint32_t *value) {
  if (c >= '0' && c <= '9') return *value = *value * 16 + (uint32_t)(c - '0'), true;
  if (c >= 'A' && c <= 'F') return *value = *value * 16 + (uint32_t)(c - 'A' + 10), true;
  return false;
}

/* Byte pieces are spelled <0x0A>. */
static bool byte_of_piece(gguf_string piece, uint32_t *byte) {
  *byte = 0;
  return piece.length == 6 && memcmp(piece.bytes, "<0x", 3) == 0 && piece.bytes[5] == '>' &&
         hex_digit(piece.bytes[3], byte) && hex_digit(piece.bytes[4], byte);
}

static const gguf_value *find_array(const gguf_file *file, const char *key, uint32_t type,
                                    uint64_t count, failure *why) {
  const gguf_value *value = gguf_find(file, key);
  if (value == NULL) {
    fail(why, "%s: key %s is missing; a SentencePiece-style vocabulary needs it", file->name, key);
    return NULL;
  }
  if (!value->is_array || value->type != type || (count != 0 && value->count != count)) {
    fail(why, "%s: key %s is not an array of %s with %" PRIu64 " elements", file->name, key,
         type == GGUF_STRING    ? "strings"
         : type == GGUF_FLOAT32 ? "float32"
                                : "int32",
         count);
    return NULL;
  }
  return value;
}

static bool check_model(const gguf_file *file, failure *why) {
  gguf_string model = {"", 0};
  if (!gguf_read_string(file, "tokenizer.ggml.model", &model, why)) return false;
  if (gguf_equals(model, "llama")) return true;
  if (model.length == 0) {
    return fail(why, "%s: key tokenizer.ggml.model is missing; expected \"llama\"", file->name);
  }
  return fail(why,
              "%s: tokenizer.ggml.model is \"%.*s\"; only SentencePiece-style vocabularies"
              " (\"llama\") can be read%s",
              file->name, model.length < 40 ? (int)model.length : 40, model.bytes,
              gguf_equals(model, "gpt2") ? ", byte-level BPE (\"gpt2\") cannot" : "");
}

static bool read_special(tokenizer *out, const gguf_file *file, failure *why) {
  const char *keys[] = {"tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id",
                        "tokenizer.ggml.unknown_token_id"};
  uint32_t *tokens[] = {&out->beginning, &out->end, &out->unknown};
  for (uint32_t i = 0; i < 3; i++) {
    *tokens[i] = NO_TOKEN;
    if (!gguf_read_u32(file, keys[i], tokens[i], why)) return false;
    if (*tokens[i] != NO_TOKEN && *tokens[i] >= out->count) {
      return fail(why, "%s: %s is %" PRIu32 "; the vocabulary has %" PRIu32 " pieces", file->name,
                  keys[i], *tokens[i], out->count);
    }
  }
  out->add_beginning = true;
  out->add_space = true;
  if (!gguf_read_bool(file, "tokenizer.ggml.add_bos_token", &out->add_beginning, why) ||
      !gguf_read_bool(file, "tokenizer.ggml.add_space_prefix", &out->add_space, why)) {
    return false;
  }
  if (out->beginning == NO_TOKEN) out->add_beginning = false;
  return true;
}

static void read_pieces(tokenizer *out, const gguf_value *pieces, const gguf_value *scores,
                        const gguf_value *kinds) {
  const uint8_t *cursor = pieces->data;
  for (uint32_t i = 0; i < out->count; i++) {
    int32_t kind = PIECE_NORMAL;
    if (kinds != NULL) memcpy(&kind, kinds->data + 4 * (uint64_t)i, 4);
    out->pieces[i] = gguf_next_string(&cursor);
    out->kinds[i] = kind >= PIECE_NORMAL && kind <= PIECE_BYTE ? (uint8_t)kind : PIECE_NORMAL;
    memcpy(&out->scores[i], scores->data + 4 * (uint64_t)i, 4);
  }
  for (uint32_t i = 0; i < 256; i++) out->byte_tokens[i] = NO_TOKEN;
  for (uint32_t i = 0; i <= out->slot_mask; i++) out->slots[i] = NO_TOKEN;
  for (uint32_t i = 0; i < out->count; i++) {
    uint32_t byte;
    bool is_byte = byte_of_piece(out->pieces[i], &byte);
    if (is_byte && (kinds == NULL || out->kinds[i] == PIECE_BYTE)) {
      out->byte_tokens[byte] = i;
    } else if (out->kinds[i] == PIECE_NORMAL || out->kinds[i] == PIECE_USER_DEFINED) {
      index_piece(out, i);
    }
  }
}

static bool load(tokenizer *out, const gguf_file *file, failure *why) {
  if (!check_model(file, why)) return false;
  const gguf_value *pieces = find_array(file, "tokenizer.ggml.tokens", GGUF_STRING, 0, why);
  if (pieces == NULL) return false;
  if (pieces->count == 0 || pieces->count > MOST_PIECES) {
    return fail(why, "%s: tokenizer.ggml.tokens has %" PRIu64 " pieces; expected 1 to %u",
                file->name, pieces->count, MOST_PIECES);
  }
  out->count = (uint32_t)pieces->count;
  const gguf_value *scores =
      find_array(file, "tokenizer.ggml.scores", GGUF_FLOAT32, out->count, why);
  if (scores == NULL) return false;
  const gguf_value *kinds = NULL;
  if (gguf_find(file, "tokenizer.ggml.token_type") != NULL) {
    kinds = find_array(file, "tokenizer.ggml.token_type", GGUF_I32, out->count, why);
    if (kinds == NULL) return false;
  }
  uint32_t slots = 16;
  while (slots < 2 * out->count) slots *= 2;
  out->slot_mask = slots - 1;
  out->pieces = memory_take(out->count, sizeof *out->pieces);
  out->scores = memory_take(out->count, sizeof *out->scores);
  out->kinds = memory_take(out->count, sizeof *out->kinds);
  out->slots = memory_take(slots, sizeof *out->slots);
  if (!out->pieces || !out->scores || !out->kinds || !out->slots) {
    return fail(why, "%s: no memory for %" PRIu32 " pieces", file->name, out->count);
  }
  read_pieces(out, pieces, scores, kinds);
  return read_special(out, file, why);
}

bool tokenizer_load(tokenizer *out, const gguf_file *file, failure *why) {
  memset(out, 0, sizeof *out);
  if (load(out, file, why)) return true;
  tokenizer_release(out);
  return false;
}

void tokenizer_release(tokenizer *out) {
  memory_give(out->pieces);
  memory_give(out->scores);
  memory_give(out->kinds);
  memory_give(out->slots);
  memset(out, 0, sizeof *out);
}

uint32_t tokenizer_decode(const tokenizer *with, uint32_t token, bool at_start, char *out,
                          uint32_t room) {
  if (token >= with->count || room == 0) return 0;
  uint32_t kind = with->kinds[token];
  if (kind == PIECE_CONTROL || kind == PIECE_UNUSED || token == with->beginning ||
      token == with->end) {
    return 0;
  }
  gguf_string piece = with->pieces[token];
  uint32_t byte;
  if (byte_of_piece(piece, &byte) && with->byte_tokens[byte] == token) {
    out[0] = (char)byte;
    return 1;
  }
  uint32_t written = 0;
  for (uint64_t i = 0; i < piece.length && written < room; i++) {
    bool is_space =
        piece.length - i >= SPACE_BYTES && memcmp(piece.bytes + i, SPACE, SPACE_BYTES) == 0;
    bool dropped = is_space && i == 0 && at_start && with->add_space;
    if (!dropped) out[written++] = is_space ? ' ' : piece.bytes[i];
    if (is_space) i += SPACE_BYTES - 1;
  }
  return written;
}
