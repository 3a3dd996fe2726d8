/* What kvsift-eval is asked for. */
#ifndef EVAL_OPTIONS_H
#define EVAL_OPTIONS_H

#include "options.h"

#define MOST_LENGTHS 4u
#define MOST_SHARES 6u
#define DEPTHS 5u /* 0, 1/4 ... 1 of the text */
#define MOST_TAILS 3u

typedef struct eval_options {
  options base; /* model, cache type, threads, what all policies share */
  const char *text;
  uint32_t lengths[MOST_LENGTHS], length_count;
  uint32_t methods[KVSIFT_METHOD_COUNT], method_count;
  uint32_t tails[MOST_TAILS], tail_count;
  float shares[MOST_SHARES];
  uint32_t share_count;
  uint32_t trials;        /* samples of each length and depth */
  uint32_t windows;       /* stretches of text */
  uint32_t window_tokens; /* decoded in each */
} eval_options;

bool eval_options_read(eval_options *out, int count, char **arguments, failure *why);
void eval_options_print_help(void);

extern const char *const eval_tail_names[MOST_TAILS];

#endif
