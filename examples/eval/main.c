/* kvsift-eval: how near the methods come to full attention, on tasks and on text. */
#include <inttypes.h>

#include "generate.h"
#include "random.h"
#include "results_json.h"
#include "trial.h"

typedef struct evaluation {
  const eval_options *from;
  engine engine;
  sentences text;
  contest all;
  results results;
  picture drawn;
  uint32_t longest;         /* context, in tokens */
  uint32_t samples, sample; /* of the whole run, and the one under way */
  double start;
} evaluation;

static uint64_t sample_seed(const evaluation *ev, uint32_t task, uint32_t length, uint32_t depth,
                            uint32_t trial) {
  random_state r = {ev->from->base.seed};
  uint64_t seed = random_bits(&r);
  const uint32_t parts[] = {task, length, depth, trial};
  for (uint32_t i = 0; i < 4; i++) {
    r.state = seed ^ parts[i];
    seed = random_bits(&r);
  }
  return seed;
}

/* Whether the sample under way still has to be done; an earlier run may have. */
static bool is_due(evaluation *ev) { return ev->sample++ >= ev->results.done; }

static void show(const evaluation *ev, const char *what) {
  fprintf(stderr, "sample %" PRIu32 " of %" PRIu32 ": %s, %.0f s\n", ev->sample, ev->samples, what,
          seconds_now() - ev->start);
}

static bool run_task(evaluation *ev, uint32_t task, uint32_t length, uint32_t depth, uint32_t trial,
                     failure *why) {
  const eval_options *from = ev->from;
  task_sample sample;
  char what[64];
  if (!is_due(ev)) return true;
  double place = task == TASK_NEEDLE ? depth / (double)(DEPTHS - 1) : -1;
  if (!task_make(&sample, &ev->text, &ev->engine.model->tokens, task, from->lengths[length], place,
                 sample_seed(ev, task, length, depth, trial), why)) {
    return false;
  }
  snprintf(what, sizeof what, "%s at %" PRIu32 " tokens", task_name(task), from->lengths[length]);
  show(ev, what);
  bool done =
      trial_answers(&ev->engine, &ev->all, &sample, task, length, depth, &ev->results, why) &&
      results_sample_done(&ev->results, why);
  task_release(&sample);
  return done;
}

static uint32_t task_depths(uint32_t task) { return task == TASK_NEEDLE ? DEPTHS : 1; }

static bool run_tasks(evaluation *ev, failure *why) {
  for (uint32_t task = 0; task < TASK_COUNT; task++) {
    for (uint32_t length = 0; length < ev->from->length_count; length++) {
      for (uint32_t depth = 0; depth < task_depths(task); depth++) {
        for (uint32_t trial = 0; trial < ev->from->trials; trial++) {
          if (!run_task(ev, task, length, depth, trial, why)) return false;
        }
      }
    }
  }
  return true;
}

/* Stretches spread evenly over the text, each as long as the longest task. */
static bool run_window(evaluation *ev, uint32_t window, failure *why) {
  const eval_options *from = ev->from;
  const token_list *text = &ev->text.tokens;
  uint32_t decoded = from->window_tokens, length = ev->longest - 1;
  token_list tokens = {0};
  if (!is_due(ev)) return true;
  if (text->count < length || decoded + 2 > length) {
    return fail(why,
                "%s: %" PRIu32 " tokens of text; a stretch takes %" PRIu32 " and decodes %" PRIu32,
                from->text, text->count, length, decoded);
  }
  uint32_t spare = text->count - length;
  uint32_t begin =
      from->windows > 1 ? (uint32_t)((uint64_t)spare * window / (from->windows - 1)) : 0;
  bool done = !ev->engine.model->tokens.add_beginning ||
              token_list_push(&tokens, ev->engine.model->tokens.beginning, why);
  for (uint32_t i = 0; i < length && done; i++) {
    done = token_list_push(&tokens, text->tokens[begin + i], why);
  }
  show(ev, "text");
  done = done &&
         trial_text(&ev->engine, &ev->all, tokens.tokens, tokens.count - decoded, decoded,
                    window == 0, &ev->results, why) &&
         results_sample_done(&ev->results, why);
  token_list_release(&tokens);
  return done;
}

static uint32_t count_samples(const eval_options *from) {
  uint32_t count = from->windows;
  for (uint32_t task = 0; task < TASK_COUNT; task++) {
    count += from->length_count * task_depths(task) * from->trials;
  }
  return count;
}

/* Answers may run on past what a task of `length` tokens has room for. */
#define ANSWER_ROOM 128u

static uint64_t mix(uint64_t hash, const char *text) {
  for (; *text != 0; text++) hash = (hash ^ (uint8_t)*text) * 1099511628211u;
  return (hash ^ 0xff) * 1099511628211u;
}

/* Tells runs apart whose results must not be mixed. */
static void write_key(const evaluation *ev, char key[64]) {
  const eval_options *from = ev->from;
  char numbers[160];
  uint64_t hash = mix(14695981039346656037u, from->base.model);
  hash = mix(hash, from->text);
  for (uint32_t i = 0; i < ev->all.count; i++) hash = mix(hash, ev->all.list[i].name);
  snprintf(numbers, sizeof numbers, "%u %u %u %u %u %u %u %u %u %u %llu", from->trials, from->windows,
           from->window_tokens, from->base.sink, from->base.local, from->base.dense_layers,
           from->base.block, from->base.grouping, from->base.cache_type, from->base.moments,
           (unsigned long long)from->base.seed);
  hash = mix(hash, numbers);
  for (uint32_t i = 0; i < from->length_count; i++) {
    snprintf(numbers, sizeof numbers, "%u", from->lengths[i]);
    hash = mix(hash, numbers);
  }
  snprintf(key, 64, "kvsift-eval %016llx", (unsigned long long)hash);
}

/* Of the first stretch of text, whose length run_window decides; none where there is no stretch. */
static bool create_picture(evaluation *ev, const model *m, failure *why) {
  uint32_t rows = ev->from->windows > 0 ? ev->from->window_tokens : 0;
  uint32_t tokens = ev->longest - 1 + m->tokens.add_beginning;
  if (rows >= tokens) rows = 0; /* run_window reports it */
  return picture_create(&ev->drawn, &ev->all, m, tokens - rows, rows, why);
}

static bool create(evaluation *ev, const model *m, workers *pool, failure *why) {
  const eval_options *from = ev->from;
  char key[64];
  for (uint32_t i = 0; i < from->length_count; i++) {
    if (from->lengths[i] > ev->longest) ev->longest = from->lengths[i];
  }
  if (ev->longest > m->context) {
    return fail(why, "--lengths asks for %" PRIu32 " tokens; %s was made for %" PRIu32, ev->longest,
                from->base.model, m->context);
  }
  uint32_t capacity = ev->longest + ANSWER_ROOM;
  if (!sentences_read(&ev->text, &m->tokens, from->text, why) ||
      !engine_create(&ev->engine, m, pool, from->base.cache_type, capacity, why) ||
      !contest_create(&ev->all, from, m, capacity, why) || !create_picture(ev, m, why)) {
    return false;
  }
  write_key(ev, key);
  return results_open(&ev->results, from->base.json, key, &ev->all, m, from->length_count,
                      &ev->drawn, why);
}

static bool evaluate(const eval_options *from, const model *m, workers *pool, failure *why) {
  evaluation ev = {.from = from, .samples = count_samples(from), .start = seconds_now()};
  bool done = create(&ev, m, pool, why);
  if (done && ev.results.done > 0) {
    fprintf(stderr, "%" PRIu32 " of %" PRIu32 " samples are done already\n", ev.results.done,
            ev.samples);
  }
  done = done && run_tasks(&ev, why);
  for (uint32_t i = 0; i < from->windows && done; i++) done = run_window(&ev, i, why);
  done = done && results_write_json(&ev.results, &ev.all, from, why);
  results_release(&ev.results);
  picture_release(&ev.drawn);
  contest_release(&ev.all);
  engine_release(&ev.engine);
  sentences_release(&ev.text);
  return done;
}

static bool run(const eval_options *from, failure *why) {
  model m;
  if (!model_load(&m, from->base.model, why)) return false;
  workers *pool = workers_start(from->base.threads > 0 ? from->base.threads : 1, why);
  bool done = pool != NULL && evaluate(from, &m, pool, why);
  workers_stop(pool);
  model_release(&m);
  return done;
}

int main(int count, char **arguments) {
  eval_options from;
  failure why = {""};
  interrupt_catch();
  bool done = eval_options_read(&from, count, arguments, &why);
  if (done && from.base.help) {
    eval_options_print_help();
    return 0;
  }
  if (done && run(&from, &why)) return 0;
  fprintf(stderr, "kvsift-eval: %s\n", why.text);
  return interrupted() ? 130 : 1;
}
