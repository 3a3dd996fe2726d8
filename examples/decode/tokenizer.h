/* SentencePiece-style vocabularies as GGUF files carry them (tokenizer.ggml.model = "llama"):
 * pieces are merged by score, what no piece covers becomes bytes, and a space is written as U+2581.
 */
#ifndef DECODE_TOKENIZER_H
#define DECODE_TOKENIZER_H

#include "gguf.h"

#define NO_TOKEN UINT32_MAX

enum {
  PIECE_NORMAL = 1,
  PIECE_UNKNOWN,
  PIECE_CONTROL,
  PIECE_USER_DEFINED,
  PIECE_UNUSED,
  PIECE_BYTE
};

typedef struct tokenizer {
  uint32_t count;
  gguf_string *pieces; /* [count], in the file's bytes */
  float *scores;       /* [count] */
  uint8_t *kinds;      /* [count] PIECE_* */
  uint32_t *slots;     /* hash table of piece -> token */
  uint32_t slot_mask;
  uint32_t byte_tokens[256];        /* NO_TOKEN where there is none */
  uint32_t beginning, end, unknown; /* NO_TOKEN where there is none */
  bool add_beginning;
  bool add_space; /* text at the start gets a space in front */
} tokenizer;

typedef struct token_list {
  uint32_t *tokens;
  uint32_t count;
  uint32_t capacity;
} token_list;

bool tokenizer_load(tokenizer *out, const gguf_file *file, failure *why);
void tokenizer_release(tokenizer *out);

/* Appends the tokens of `text`. At the start of a sequence the beginning token and the leading
 * space are added as the model asks for; later text is taken as it stands. */
bool tokenizer_encode(const tokenizer *with, const char *text, uint64_t length, bool at_start,
                      token_list *out, failure *why);

/* Writes the text of one token (not terminated) and returns its length, at most `room` bytes. At
 * the start of a sequence the leading space that encoding added is dropped. */
uint32_t tokenizer_decode(const tokenizer *with, uint32_t token, bool at_start, char *out,
                          uint32_t room);

uint32_t tokenizer_find(const tokenizer *with, const char *bytes, uint64_t length);

bool token_list_push(token_list *list, uint32_t token, failure *why);
void token_list_release(token_list *list);

#endif
