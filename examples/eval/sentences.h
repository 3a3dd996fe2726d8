/* Running text as tokens, cut at sentence starts so that facts can be put between. */
#ifndef EVAL_SENTENCES_H
#define EVAL_SENTENCES_H

#include "tokenizer.h"

typedef struct sentences {
  token_list tokens;
  token_list starts; /* where sentences begin; the end of the text comes last */
} sentences;

/* Reads a text file. Hard-wrapped prose is unwrapped: a line of 50 characters or more goes on in
 * the next one. */
bool sentences_read(sentences *out, const tokenizer *with, const char *path, failure *why);
void sentences_release(sentences *out);
uint32_t sentences_count(const sentences *of);

#endif
