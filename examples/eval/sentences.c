#include "sentences.h"

#include <string.h>

#include "file.h"
#include "memory.h"

#define LONG_LINE 50u        /* characters */
#define SHORTEST_SENTENCE 4u /* tokens */
#define LONGEST_SENTENCE 60u
#define LEAST_SENTENCES 32u

static uint64_t unwrap(const char *text, uint64_t size, char *out) {
  uint64_t used = 0, line = 0;
  for (uint64_t i = 0; i < size; i++) {
    char c = text[i];
    if (c == '\r') continue;
    if (c == '\n') {
      bool goes_on =
          line >= LONG_LINE && i + 1 < size && text[i + 1] != '\n' && text[i + 1] != '\r';
      line = 0;
      c = goes_on ? ' ' : '\n';
    } else {
      line += ((uint8_t)c & 0xc0) != 0x80;
    }
    bool repeats = (c == ' ' || c == '\n') && used > 0 && out[used - 1] == c;
    if (!repeats) out[used++] = c;
  }
  return used;
}

static bool ends_sentence(gguf_string piece) {
  static const char *const ends[] = {".", "!", "?", ".\"", "<0x0A>"};
  for (uint32_t i = 0; i < sizeof ends / sizeof *ends; i++) {
    uint64_t length = strlen(ends[i]);
    if (piece.length >= length &&
        memcmp(piece.bytes + piece.length - length, ends[i], length) == 0) {
      return true;
    }
  }
  return false;
}

static bool begins_word(gguf_string piece) {
  return piece.length >= 3 && memcmp(piece.bytes, "\xe2\x96\x81", 3) == 0;
}

static bool find_starts(sentences *out, const tokenizer *with, failure *why) {
  const token_list *tokens = &out->tokens;
  if (!token_list_push(&out->starts, 0, why)) return false;
  for (uint32_t i = 1; i < tokens->count; i++) {
    uint32_t length = i - out->starts.tokens[out->starts.count - 1];
    bool after_end = ends_sentence(with->pieces[tokens->tokens[i - 1]]);
    bool starts = (after_end && length >= SHORTEST_SENTENCE) || length >= LONGEST_SENTENCE;
    if (starts && begins_word(with->pieces[tokens->tokens[i]]) &&
        !token_list_push(&out->starts, i, why)) {
      return false;
    }
  }
  return token_list_push(&out->starts, tokens->count, why);
}

static bool read_text(sentences *out, const tokenizer *with, const mapped_file *file,
                      failure *why) {
  char *text = memory_take(file->size, 1);
  if (text == NULL)
    return fail(why, "no memory for %llu bytes of text", (unsigned long long)file->size);
  uint64_t length = unwrap(file->bytes, file->size, text);
  bool done = tokenizer_encode(with, text, length, false, &out->tokens, why);
  memory_give(text);
  return done && find_starts(out, with, why);
}

bool sentences_read(sentences *out, const tokenizer *with, const char *path, failure *why) {
  mapped_file file;
  memset(out, 0, sizeof *out);
  if (!file_map(&file, path, why)) return false;
  bool done = read_text(out, with, &file, why);
  file_unmap(&file);
  if (done && sentences_count(out) < LEAST_SENTENCES) {
    done = fail(why, "%s: holds %u sentences; expected at least %u", path, sentences_count(out),
                LEAST_SENTENCES);
  }
  if (!done) sentences_release(out);
  return done;
}

void sentences_release(sentences *out) {
  token_list_release(&out->tokens);
  token_list_release(&out->starts);
}

uint32_t sentences_count(const sentences *of) {
  return of->starts.count > 0 ? of->starts.count - 1 : 0;
}
