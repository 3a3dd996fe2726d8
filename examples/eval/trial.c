#include "trial.h"

#include <math.h>
#include <string.h>

#include "distribution.h"
#include "generate.h"
#include "memory.h"

#define JUDGED_STEPS 4u /* judging a step costs more than making it */

/* All policies read the prompt; its last token is left to be decoded. */
static bool read_for_all(engine *e, contest *all, const uint32_t *tokens, uint32_t count,
                         failure *why) {
  sift_set set = {all->sifts, all->count, all->unused};
  if (!contest_reset(all, why)) return false;
  engine_truncate(e, 0);
  e->attention = sift_attention(&set);
  for (uint32_t done = 0; done < count;) {
    uint32_t batch = engine_first_batch(count - done);
    if (interrupted()) return fail(why, "interrupted");
    if (!engine_read(e, tokens + done, batch, count - done - batch, why)) return false;
    done += batch;
  }
  return true;
}

static bool answer(engine *e, contest *all, uint32_t who, const script *of, cell *out,
                   failure *why) {
  sift_set set = {&all->sifts[who], 1, NULL};
  generation run = {0};
  engine_truncate(e, of->prompt.count - 1);
  e->attention = sift_attention(&set);
  bool done = generate(e, of, false, &run, why);
  for (uint32_t i = 0; i < run.answer_count && done; i++) {
    out->asked++;
    out->right += task_is_right(run.answers[i], of->turns[i].expected);
  }
  generation_release(&run);
  return done;
}

bool trial_answers(engine *e, contest *all, const task_sample *sample, uint32_t task,
                   uint32_t length, uint32_t depth, results *to, failure *why) {
  const script *s = &sample->script;
  if (!read_for_all(e, all, s->prompt.tokens, s->prompt.count - 1, why)) return false;
  for (uint32_t i = 0; i < all->count; i++) {
    cell outcome = {0};
    if (!answer(e, all, i, s, &outcome, why)) return false;
    results_add_answers(to, task, length, depth, i, outcome);
  }
  return true;
}

typedef struct stretch {
  const uint32_t *tokens;
  uint32_t prompt, decoded;
  float *full;  /* [decoded][vocabulary]: logits of full attention */
  double *logs; /* [2][vocabulary] */
} stretch;

static double text_bytes(const tokenizer *with, uint32_t token) {
  char text[256];
  return tokenizer_decode(with, token, false, text, sizeof text);
}

static void judge(const engine *e, const stretch *s, uint32_t step, text_outcome *out) {
  uint32_t vocabulary = e->model->vocabulary, next = s->tokens[s->prompt + step];
  const float *full = s->full + (uint64_t)step * vocabulary;
  log_softmax(full, vocabulary, s->logs);
  log_softmax(e->logits, vocabulary, s->logs + vocabulary);
  out->tokens++;
  out->agreed += likeliest(e->logits, vocabulary) == likeliest(full, vocabulary);
  out->divergence += divergence(s->logs, s->logs + vocabulary, vocabulary);
  out->nats -= s->logs[vocabulary + next];
  out->bytes += text_bytes(&e->model->tokens, next);
}

typedef struct audience {
  sift_listener judge;
  picture *drawn; /* null: none */
} audience;

static void heard(void *self, const attention_input *input, const kvsift_selection *selection,
                  const float *out) {
  const audience *all = self;
  all->judge.heard(all->judge.self, input, selection, out);
  if (all->drawn != NULL) picture_draw(all->drawn, input, selection);
}

/* Contestant 0 is full attention, whose logits the others are held against. */
static bool follow(engine *e, contest *all, uint32_t who, const stretch *s, audience *heard_by,
                   text_outcome *out, failure *why) {
  sift_set set = {&all->sifts[who], 1, NULL};
  uint32_t vocabulary = e->model->vocabulary;
  engine_truncate(e, s->prompt - 1);
  e->attention = sift_attention(&set);
  all->sifts[who]->listener = (sift_listener){heard_by, heard};
  bool done = true;
  for (uint32_t i = 0; i < s->decoded && done; i++) {
    done = !interrupted() || fail(why, "interrupted");
    done = done && engine_step(e, s->tokens[s->prompt - 1 + i], why);
    if (done && who == 0) {
      memcpy(s->full + (uint64_t)i * vocabulary, e->logits, vocabulary * sizeof(float));
    }
    if (done) judge(e, s, i, out);
  }
  all->sifts[who]->listener = (sift_listener){NULL, NULL};
  return done;
}

static bool follow_measured(engine *e, contest *all, uint32_t who, const stretch *s, picture *drawn,
                            results *to, failure *why) {
  measure measured;
  text_outcome outcome = {0};
  if (!measure_create(&measured, e->model, e->cache.capacity, why)) return false;
  measured.every = JUDGED_STEPS;
  audience heard_by = {measure_listener(&measured), drawn};
  bool done = follow(e, all, who, s, &heard_by, &outcome, why);
  if (done) {
    results_add_text(to, who, &outcome);
    results_add_quality(to, who, &measured);
  }
  measure_release(&measured);
  return done;
}

bool trial_text(engine *e, contest *all, const uint32_t *tokens, uint32_t prompt, uint32_t decoded,
                bool draw, results *to, failure *why) {
  uint32_t vocabulary = e->model->vocabulary;
  stretch s = {tokens, prompt, decoded, NULL, NULL};
  s.full = memory_take((uint64_t)decoded * vocabulary, sizeof *s.full);
  s.logs = memory_take(2 * (uint64_t)vocabulary, sizeof *s.logs);
  bool done = s.full != NULL && s.logs != NULL;
  if (!done) fail(why, "no memory for the logits of %u steps", decoded);
  done = done && read_for_all(e, all, tokens, prompt - 1, why);
  for (uint32_t i = 0; i < all->count && done; i++) {
    bool drawn = draw && i == to->drawn->contestant;
    done = follow_measured(e, all, i, &s, drawn ? to->drawn : NULL, to, why);
  }
  if (done && draw) results_keep_picture(to);
  memory_give(s.full);
  memory_give(s.logs);
  return done;
}
