#include "generate.h"

#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "distribution.h"
#include "memory.h"

#define PROGRESS_AFTER 1.0 /* seconds; shorter prompts need none */

static volatile sig_atomic_t interrupt_seen;

static void note_interrupt(int signal_number) {
  (void)signal_number;
  interrupt_seen = 1;
}

void interrupt_catch(void) {
  struct sigaction action = {.sa_handler = note_interrupt, .sa_flags = (int)SA_RESETHAND};
  sigaction(SIGINT, &action, NULL); /* a second Ctrl-C ends the program the hard way */
}

bool interrupted(void) { return interrupt_seen != 0; }

double seconds_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

void show_progress(uint32_t done, uint32_t all, double seconds) {
  if (seconds < PROGRESS_AFTER || (done < all && !isatty(STDERR_FILENO))) return;
  fprintf(stderr, "\rreading the prompt: %" PRIu32 " of %" PRIu32 " tokens, %.0f tokens/s%s", done,
          all, done / seconds, done == all ? "\n" : "");
}

bool read_prompt(engine *e, const script *of, double *seconds, failure *why) {
  uint32_t all = of->prompt.count - 1;
  double start = seconds_now();
  for (uint32_t done = 0; done < all;) {
    uint32_t count = engine_first_batch(all - done);
    if (interrupted()) return fail(why, "interrupted");
    if (!engine_read(e, of->prompt.tokens + done, count, all - done - count, why)) return false;
    done += count;
    show_progress(done, all, seconds_now() - start);
  }
  *seconds = seconds_now() - start;
  return true;
}

void generation_release(generation *out) {
  token_list_release(&out->fed);
  token_list_release(&out->best);
  memory_give(out->logits);
  out->logits = NULL;
}

bool generation_same(const generation *a, const generation *b) {
  return a->best.count == b->best.count &&
         memcmp(a->best.tokens, b->best.tokens, a->best.count * sizeof *a->best.tokens) == 0;
}

bool generation_keep_logits(generation *run, const engine *e, const script *of, failure *why) {
  uint64_t steps = script_longest(of) - of->prompt.count + 1;
  run->logits = memory_take(steps * e->model->vocabulary, sizeof(float));
  return run->logits != NULL || fail(why, "no memory for the logits of %" PRIu64 " steps", steps);
}

static bool feed(engine *e, uint32_t token, generation *out, failure *why) {
  if (interrupted()) return fail(why, "interrupted");
  double start = seconds_now();
  if (!engine_step(e, token, why)) return false;
  out->seconds += seconds_now() - start;
  uint64_t vocabulary = e->model->vocabulary;
  if (out->logits != NULL) {
    memcpy(out->logits + out->fed.count * vocabulary, e->logits, vocabulary * sizeof(float));
  }
  return token_list_push(&out->fed, token, why) &&
         token_list_push(&out->best, likeliest(e->logits, e->model->vocabulary), why);
}

static void add_to_answer(char *answer, const char *text, uint32_t length) {
  uint32_t used = (uint32_t)strlen(answer);
  if (length > ANSWER_BYTES - 1 - used) length = ANSWER_BYTES - 1 - used;
  memcpy(answer + used, text, length);
  answer[used + length] = 0;
}

static void show_text(const char *text, uint32_t length, bool shown) {
  if (!shown) return;
  fwrite(text, 1, length, stdout);
  fflush(stdout);
}

/* Decodes until the answer ends; the last token of the answer is left in *next, not yet fed. */
static bool answer(engine *e, const script *of, bool shown, uint32_t *next, char *text,
                   generation *out, failure *why) {
  const tokenizer *tokens = &e->model->tokens;
  for (uint32_t i = 0; i < of->answer_tokens; i++) {
    char piece[256];
    if (i > 0 && !feed(e, *next, out, why)) return false;
    *next = out->best.tokens[out->best.count - 1];
    uint32_t length = tokenizer_decode(tokens, *next, false, piece, sizeof piece);
    add_to_answer(text, piece, length);
    show_text(piece, length, shown);
    if (*next == tokens->end) return true;
    if (of->stops_at_period && length > 0 && piece[length - 1] == '.') return true;
  }
  return true;
}

static void show_tokens(const tokenizer *tokens, const token_list *list, bool shown) {
  for (uint32_t i = 0; i < list->count; i++) {
    char piece[256];
    show_text(piece, tokenizer_decode(tokens, list->tokens[i], false, piece, sizeof piece), shown);
  }
}

bool generate(engine *e, const script *of, bool shown, generation *out, failure *why) {
  uint32_t next = of->prompt.tokens[of->prompt.count - 1];
  for (uint32_t i = 0; i < of->turn_count; i++) {
    const token_list *question = &of->turns[i].tokens;
    if (!feed(e, next, out, why)) return false;
    show_tokens(&e->model->tokens, question, shown);
    for (uint32_t t = 0; t < question->count; t++) {
      if (!feed(e, question->tokens[t], out, why)) return false;
    }
    out->answer_count = i + 1;
    if (!answer(e, of, shown, &next, out->answers[i], out, why)) return false;
  }
  show_text("\n", 1, shown);
  return true;
}
