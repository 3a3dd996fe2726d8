/* One sample for every contestant: the prompt is read once, then each goes on from it on its own.
 */
#ifndef EVAL_TRIAL_H
#define EVAL_TRIAL_H

#include "results.h"

/* Answers a task; counts right answers. */
bool trial_answers(engine *e, contest *all, const task_sample *sample, uint32_t task,
                   uint32_t length, uint32_t depth, results *to, failure *why);

/* Follows `decoded` tokens of text after `prompt` others; counts agreement, divergence, bits and
 * recovery. Where asked to `draw`, the results' picture is made on the way. */
bool trial_text(engine *e, contest *all, const uint32_t *tokens, uint32_t prompt, uint32_t decoded,
                bool draw, results *to, failure *why);

#endif
