/* What a run reads and is asked, as tokens. */
#ifndef DECODE_SCRIPT_H
#define DECODE_SCRIPT_H

#include "model.h"
#include "options.h"

#define MOST_TURNS 8u

typedef struct turn {
  token_list tokens;    /* read before the answer; empty for the first turn */
  const char *expected; /* null: unknown */
} turn;

typedef struct script {
  token_list prompt;
  turn turns[MOST_TURNS];
  uint32_t turn_count;
  uint32_t answer_tokens; /* the most of each answer */
  bool stops_at_period;   /* the planted facts' answers end with one */
} script;

bool script_make(script *out, const model *m, const options *from, failure *why);
void script_release(script *out);
uint32_t script_longest(const script *of); /* tokens that the whole run can come to */

#endif
