/* Reading a prompt and answering from it. */
#ifndef DECODE_GENERATE_H
#define DECODE_GENERATE_H

#include "engine.h"
#include "script.h"

#define ANSWER_BYTES 2048u

/* What became of a run; all zero before it. */
typedef struct generation {
  token_list fed;  /* tokens decoded one by one, the prompt's last one first */
  token_list best; /* the likeliest next token after each */
  char answers[MOST_TURNS][ANSWER_BYTES];
  uint32_t answer_count;
  double seconds; /* spent on `fed` */
  float *logits;  /* [fed][vocabulary]; null unless kept */
} generation;

/* All of the prompt but its last token, which is left to be decoded. Progress goes to stderr. */
bool read_prompt(engine *e, const script *of, double *seconds, failure *why);

/* Has `run` keep the logits of every step; to be asked before generate. */
bool generation_keep_logits(generation *run, const engine *e, const script *of, failure *why);

/* Answers every turn greedily. With `shown` the text is printed as it comes. */
bool generate(engine *e, const script *of, bool shown, generation *out, failure *why);

/* Whether both runs had the same likeliest tokens all along. */
bool generation_same(const generation *a, const generation *b);
void generation_release(generation *out);

double seconds_now(void);

/* On stderr, once it is worth a line; step by step on a terminal only. */
void show_progress(uint32_t done, uint32_t all, double seconds);

/* Ctrl-C: work stops at the next token. */
void interrupt_catch(void);
bool interrupted(void);

#endif
