/* Needles with BalanceKV, at equal rows: one code among similar ones is asked for after a text, at five depths; each
 * method keeps the sinks, the local tokens and a quarter of the rest of the prompt for every KV head.
 *
 *     quality_balance --text FILE [--model FILE] [--lengths 1024,2048] [--trials 20] [--threads 2] [--seed 1]
 *                     [--whole 1]
 *
 * The prompt is read with full attention up to its last token, which is decoded; with --whole 1 that token is read too.
 * Prints a Markdown table: rows read a step and KV head as a share of the context, exact answers with 95% intervals
 * (Wilson), and of the prompts that full attention answers the share that each method answers. */
#include <kvsift/balance.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "distribution.h"
#include "engine.h"
#include "memory.h"
#include "sift.h"
#include "tasks.h"

enum { SINKS = 4, LOCAL = 16, DEPTHS = 5, MOST_LENGTHS = 4, ANSWER_ROOM = 128, ENTRIES = 12 };

/* What is compared. A guard keeps as many tokens as the halvings do at the most: with one halving more it is equal. */
typedef struct entry {
  const char *name;
  kvsift_method method;
  uint32_t grouping, form, guard, halvings;
} entry;

static const entry entries[ENTRIES] = {
    {"full", KVSIFT_METHOD_FULL, KVSIFT_GROUP_MEAN, 0, 0, 0},
    {"uniform, no weights", KVSIFT_METHOD_UNIFORM, KVSIFT_GROUP_MEAN, 0, 0, 0},
    {"balance, uniform signs", KVSIFT_METHOD_BALANCE, KVSIFT_GROUP_MEAN, KVSIFT_BALANCE_UNIFORM, 0, 2},
    {"balance, plain", KVSIFT_METHOD_BALANCE, KVSIFT_GROUP_MEAN, KVSIFT_BALANCE_PRACTICAL, 0, 2},
    {"balance, plain, guard", KVSIFT_METHOD_BALANCE, KVSIFT_GROUP_MEAN, KVSIFT_BALANCE_PRACTICAL, 1, 3},
    {"balance, plain, guard on top", KVSIFT_METHOD_BALANCE, KVSIFT_GROUP_MEAN, KVSIFT_BALANCE_PRACTICAL, 1, 2},
    {"balance, graded", KVSIFT_METHOD_BALANCE, KVSIFT_GROUP_MEAN, KVSIFT_BALANCE_GRADED, 0, 2},
    {"balance, graded, guard", KVSIFT_METHOD_BALANCE, KVSIFT_GROUP_MEAN, KVSIFT_BALANCE_GRADED, 1, 3},
    {"snapkv, one choice a KV head (mean)", KVSIFT_METHOD_SNAPKV, KVSIFT_GROUP_MEAN, 0, 0, 0},
    {"snapkv, one choice a KV head (max)", KVSIFT_METHOD_SNAPKV, KVSIFT_GROUP_MAX, 0, 0, 0},
    {"snapkv, one choice a query head", KVSIFT_METHOD_SNAPKV, KVSIFT_GROUP_QUERY_HEAD, 0, 0, 0},
    {"page statistics (reads the query)", KVSIFT_METHOD_PAGE_STATS, KVSIFT_GROUP_MEAN, 0, 0, 0},
};

typedef struct wishes {
  const char *text, *model;
  uint32_t lengths[MOST_LENGTHS], length_count, trials, threads;
  uint32_t whole;
  uint64_t seed;
} wishes;

/* Counts of one method. */
typedef struct tally {
  uint32_t asked[MOST_LENGTHS][DEPTHS], right[MOST_LENGTHS][DEPTHS];
  uint32_t full_right, both_right;
  double rows, tokens; /* read, and there */
  uint8_t *marks;
} tally;

static tally tallies[ENTRIES];

static kvsift_policy_config config_of(const entry *e, const model *m, uint32_t length, uint32_t capacity) {
  kvsift_policy_config c = {.struct_size = sizeof c};
  kvsift_policy_config_init(&c, e->method);
  c.dense_layers = 0;
  c.dense_tokens = KVSIFT_DENSE_OFF;
  c.sink_tokens = SINKS;
  c.local_tokens = LOCAL;
  c.budget_tokens = SINKS + LOCAL + (length - SINKS - LOCAL) / 4;
  if (e->method == KVSIFT_METHOD_FULL) c.budget_tokens = capacity;
  c.grouping = e->grouping;
  c.balance_form = e->form;
  c.balance_guard = e->guard;
  if (e->halvings > 0) c.balance_halvings = e->halvings;
  sift_set_geometry(&c, m, capacity);
  return c;
}

/* Counts the rows that the step's lists and coresets name, each once. */
static void heard(void *self, const attention_input *in, const kvsift_selection *s, const float *out) {
  tally *to = self;
  (void)out;
  const uint32_t lists = s->lists / in->model->kv_heads;
  for (uint32_t h = 0; h < in->model->kv_heads; h++) {
    memset(to->marks, 0, in->tokens);
    for (uint32_t list = h * lists; list < (h + 1) * lists; list++) {
      const kvsift_range *r = s->ranges + (uint64_t)list * s->range_stride;
      for (uint32_t i = 0; i < s->range_counts[list]; i++) memset(to->marks + r[i].begin, 1, r[i].end - r[i].begin);
    }
    const bool coreset = s->tail == KVSIFT_TAIL_BALANCE;
    for (uint32_t i = 0; coreset && i < s->coreset_counts[h]; i++)
      to->marks[s->coreset[(uint64_t)h * s->coreset_stride + i]] = 1;
    for (uint32_t t = 0; t < in->tokens; t++) to->rows += to->marks[t];
    to->tokens += in->tokens;
  }
}

typedef struct contest {
  sift list[ENTRIES];
  sift *pointers[ENTRIES];
  float *unused;
} contest;

static bool contest_begin(contest *c, const model *m, uint32_t length, failure *why) {
  const uint32_t capacity = length + ANSWER_ROOM;
  memset(c, 0, sizeof *c);
  c->unused = memory_take((uint64_t)ENGINE_BATCH * m->query_heads * m->head_dim, sizeof(float));
  if (c->unused == NULL) return fail(why, "no memory for a prompt's output");
  for (uint32_t i = 0; i < ENTRIES; i++) {
    const kvsift_policy_config config = config_of(&entries[i], m, length, capacity);
    if (!sift_create(&c->list[i], &config, why)) return false;
    c->pointers[i] = &c->list[i];
    tallies[i].marks = realloc(tallies[i].marks, capacity);
    if (tallies[i].marks == NULL) return fail(why, "no memory for %u marks", capacity);
    c->list[i].listener = (sift_listener){&tallies[i], heard};
  }
  return true;
}

static void contest_end(contest *c) {
  for (uint32_t i = 0; i < ENTRIES; i++) sift_release(&c->list[i]);
  memory_give(c->unused);
}

/* All policies read the first `count` tokens of the prompt. */
static bool read_for_all(engine *e, contest *c, const token_list *prompt, uint32_t count, failure *why) {
  sift_set set = {c->pointers, ENTRIES, c->unused};
  for (uint32_t i = 0; i < ENTRIES; i++) kvsift_policy_reset(c->list[i].policy);
  engine_truncate(e, 0);
  e->attention = sift_attention(&set);
  for (uint32_t done = 0; done < count;) {
    const uint32_t batch = engine_first_batch(count - done);
    if (!engine_read(e, prompt->tokens + done, batch, count - done - batch, why)) return false;
    done += batch;
  }
  return true;
}

/* Decodes from `next` on until a period. */
static bool answer(engine *e, const script *of, uint32_t next, char *text, failure *why) {
  text[0] = 0;
  for (uint32_t i = 0; i < of->answer_tokens; i++) {
    char piece[256];
    const uint32_t used = (uint32_t)strlen(text), length = tokenizer_decode(&e->model->tokens, next, false, piece, 255);
    if (used + length + 1 > EXPECTED_BYTES) return true;
    memcpy(text + used, piece, length);
    text[used + length] = 0;
    if (length > 0 && piece[length - 1] == '.') return true;
    if (!engine_step(e, next, why)) return false;
    next = likeliest(e->logits, e->model->vocabulary);
  }
  return true;
}

static bool ask(engine *e, contest *c, const task_sample *sample, bool whole, uint32_t length, uint32_t depth,
                failure *why) {
  const token_list *prompt = &sample->script.prompt;
  const uint32_t read = prompt->count - (whole ? 0 : 1);
  bool full_right = false;
  if (!read_for_all(e, c, prompt, read, why)) return false;
  const uint32_t first = likeliest(e->logits, e->model->vocabulary);
  for (uint32_t i = 0; i < ENTRIES; i++) {
    sift_set set = {&c->pointers[i], 1, NULL};
    char text[EXPECTED_BYTES];
    engine_truncate(e, read);
    e->attention = sift_attention(&set);
    if (!whole && !engine_step(e, prompt->tokens[read], why)) return false;
    const uint32_t next = whole ? first : likeliest(e->logits, e->model->vocabulary);
    if (!answer(e, &sample->script, next, text, why)) return false;
    const bool right = task_is_right(text, sample->expected[0]);
    if (i == 0) full_right = right;
    tallies[i].asked[length][depth]++;
    tallies[i].right[length][depth] += right;
    tallies[i].full_right += full_right;
    tallies[i].both_right += full_right && right;
  }
  return true;
}

static bool run_length(const wishes *w, const model *m, workers *pool, const sentences *text, uint32_t length,
                       failure *why) {
  static contest c;
  engine e;
  if (!engine_create(&e, m, pool, KVSIFT_F16, w->lengths[length] + ANSWER_ROOM, why)) return false;
  bool done = contest_begin(&c, m, w->lengths[length], why);
  for (uint32_t i = 0; i < DEPTHS * w->trials && done; i++) {
    const uint32_t depth = i % DEPTHS;
    const uint64_t seed = w->seed * 1000003 + length * 10007 + i;
    task_sample sample;
    fprintf(stderr, "%u tokens, prompt %u of %u\n", w->lengths[length], i + 1, DEPTHS * w->trials);
    done = task_make(&sample, text, &m->tokens, TASK_NEEDLE, w->lengths[length], depth / (DEPTHS - 1.0), seed, why);
    if (!done) break;
    done = ask(&e, &c, &sample, w->whole != 0, length, depth, why);
    task_release(&sample);
  }
  contest_end(&c);
  engine_release(&e);
  return done;
}

/* "53% (41-65)" */
static void print_share(uint32_t right, uint32_t asked) {
  const double z = 1.959964, share = (double)right / asked, spread = z * z / asked;
  const double centre = (share + spread / 2) / (1 + spread);
  const double half = z / (1 + spread) * sqrt(share * (1 - share) / asked + spread / (4 * asked));
  if (asked == 0) printf(" |");
  else printf(" %.0f%% (%.0f-%.0f) |", 100 * share, 100 * fmax(0, centre - half), 100 * fmin(1, centre + half));
}

static void print_tally(const wishes *w, const entry *e, const tally *t) {
  uint32_t by_depth[DEPTHS][2] = {{0}}, all[2] = {0};
  printf("| %s | %.3f |", e->name, t->rows / t->tokens);
  for (uint32_t l = 0; l < w->length_count; l++) {
    uint32_t right = 0, asked = 0;
    for (uint32_t d = 0; d < DEPTHS; d++) {
      right += t->right[l][d];
      asked += t->asked[l][d];
      by_depth[d][0] += t->right[l][d];
      by_depth[d][1] += t->asked[l][d];
    }
    print_share(right, asked);
    all[0] += right;
    all[1] += asked;
  }
  print_share(all[0], all[1]);
  print_share(t->both_right, t->full_right);
  for (uint32_t d = 0; d < DEPTHS; d++) printf(" %.2f", (double)by_depth[d][0] / by_depth[d][1]);
  printf(" |\n");
}

static void print_table(const wishes *w) {
  printf("| policy | rows read |");
  for (uint32_t l = 0; l < w->length_count; l++) printf(" %u tokens |", w->lengths[l]);
  printf(" all | of full's right | by depth 0 .. 1 |\n|---|---|---|---|---|");
  for (uint32_t l = 0; l < w->length_count; l++) printf("---|");
  printf("\n");
  for (uint32_t i = 0; i < ENTRIES; i++) print_tally(w, &entries[i], &tallies[i]);
}

static bool run(const wishes *w, failure *why) {
  model m;
  sentences text;
  if (!model_load(&m, w->model, why)) return false;
  workers *pool = workers_start(w->threads, why);
  bool done = pool != NULL && sentences_read(&text, &m.tokens, w->text, why);
  for (uint32_t l = 0; l < w->length_count && done; l++) done = run_length(w, &m, pool, &text, l, why);
  if (done) print_table(w);
  workers_stop(pool);
  return done;
}

static void read_lengths(wishes *w, char *list) {
  for (char *part = strtok(list, ","); part != NULL && w->length_count < MOST_LENGTHS; part = strtok(NULL, ","))
    w->lengths[w->length_count++] = (uint32_t)strtoul(part, NULL, 10);
}

int main(int count, char **arguments) {
  wishes w = {.model = DEFAULT_MODEL, .trials = 20, .threads = 2, .seed = 1};
  char lengths[] = "1024,2048";
  failure why = {""};
  for (int i = 1; i + 1 < count; i += 2) {
    char *value = arguments[i + 1];
    if (strcmp(arguments[i], "--text") == 0) w.text = value;
    if (strcmp(arguments[i], "--model") == 0) w.model = value;
    if (strcmp(arguments[i], "--lengths") == 0) read_lengths(&w, value);
    if (strcmp(arguments[i], "--trials") == 0) w.trials = (uint32_t)strtoul(value, NULL, 10);
    if (strcmp(arguments[i], "--threads") == 0) w.threads = (uint32_t)strtoul(value, NULL, 10);
    if (strcmp(arguments[i], "--whole") == 0) w.whole = (uint32_t)strtoul(value, NULL, 10);
    if (strcmp(arguments[i], "--seed") == 0) w.seed = strtoull(value, NULL, 10);
  }
  if (w.length_count == 0) read_lengths(&w, lengths);
  if (w.text == NULL || w.trials == 0) {
    fprintf(stderr, "usage: quality_balance --text FILE [--model FILE] [--lengths A,B] [--trials N] [--threads N]"
                    " [--seed N] [--whole 1]\n");
    return 2;
  }
  if (run(&w, &why)) return 0;
  fprintf(stderr, "quality_balance: %s\n", why.text);
  return 1;
}
