/* Long-context tasks in the manner of RULER, worded as the example model was trained on them
 * (tools/tasks.py). */
#ifndef EVAL_TASKS_H
#define EVAL_TASKS_H

#include "script.h"
#include "sentences.h"

enum {
  TASK_NEEDLE, /* one code among similar ones, at a given depth */
  TASK_KEYS,   /* four codes, asked for one after the other */
  TASK_CHAIN,  /* a code that is said to be another's */
  TASK_COPY,   /* six words in order */
  TASK_COUNT
};

#define EXPECTED_BYTES 96u

typedef struct task_sample {
  script script;
  char expected[MOST_TURNS][EXPECTED_BYTES]; /* without the closing period */
} task_sample;

const char *task_name(uint32_t task);
uint32_t task_turns(uint32_t task);

/* A sample of at most `length` tokens, answers included. `depth` places the first fact; negative:
 * anywhere. */
bool task_make(task_sample *out, const sentences *text, const tokenizer *with, uint32_t task,
               uint32_t length, double depth, uint64_t seed, failure *why);
void task_release(task_sample *out);

/* Whether an answer is the expected one, spaces around it and the closing period apart. */
bool task_is_right(const char *answer, const char *expected);

#endif
