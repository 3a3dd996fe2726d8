/* The built-in prompt and what it asks. */
#ifndef DECODE_PROMPT_H
#define DECODE_PROMPT_H

#include <stdint.h>

typedef struct planted_question {
  const char *question; /* the first one follows the passages, the others an answer */
  const char *answer;   /* what full attention should come to */
} planted_question;

const char *const *prompt_passages(uint32_t *count); /* to be read one after the other */
const planted_question *prompt_questions(uint32_t *count);

#endif
