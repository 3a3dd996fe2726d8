#include "tasks.h"

#include <string.h>

#include "random.h"

#define MOST_FACTS 9u
#define EDGE_TOKENS 60u /* the last facts lie at least about this far from the end */

static const char *const adjectives[] = {"red",   "blue",  "green", "black",  "white", "gold",
                                         "grey",  "pink",  "brown", "silver", "dark",  "pale",
                                         "tall",  "small", "old",   "young",  "wild",  "calm",
                                         "proud", "brave", "quick", "quiet",  "loud",  "warm"};
static const char *const nouns[] = {"fox",  "owl",  "wolf", "bear", "lion", "crow", "hawk", "deer",
                                    "hare", "goat", "swan", "duck", "frog", "toad", "mole", "seal",
                                    "crab", "moth", "wasp", "lamb", "colt", "mare", "bull", "cat",
                                    "dog",  "pig",  "hen",  "rat",  "bat",  "bee",  "elk",  "ox"};
static const char *const values[] = {
    "lamp", "rope", "coin", "drum",  "bell",   "harp",  "flag", "boat", "cart",  "wheel", "door",
    "gate", "wall", "roof", "tower", "bridge", "river", "hill", "lake", "cave",  "field", "barn",
    "mill", "well", "road", "tree",  "rose",   "leaf",  "seed", "corn", "bread", "salt"};
enum {
  ADJECTIVES = sizeof adjectives / sizeof *adjectives,
  NOUNS = sizeof nouns / sizeof *nouns,
  VALUES = sizeof values / sizeof *values
};

typedef struct fact {
  uint32_t adjective, noun;
  const char *attribute;
  char value[EXPECTED_BYTES];
  double at; /* place in the text, 0 to 1 */
} fact;

typedef struct plan {
  fact facts[MOST_FACTS];
  uint32_t count, asked; /* the first `asked` facts have questions */
} plan;

const char *task_name(uint32_t task) {
  static const char *const names[TASK_COUNT] = {"needle", "keys", "chain", "copy"};
  return names[task];
}

uint32_t task_turns(uint32_t task) { return task == TASK_KEYS ? 4 : 1; }

static bool key_is_used(const plan *p, uint32_t adjective, uint32_t noun) {
  for (uint32_t i = 0; i < p->count; i++) {
    if (p->facts[i].adjective == adjective && p->facts[i].noun == noun) return true;
  }
  return false;
}

/* `similar` is how often a word is borrowed from a key already there. */
static void choose_key(const plan *p, fact *f, double similar, random_state *random) {
  do {
    f->adjective = random_below(random, ADJECTIVES);
    f->noun = random_below(random, NOUNS);
    if (p->count > 0 && random_unit(random) < similar) {
      const fact *old = &p->facts[random_below(random, p->count)];
      if (random_unit(random) < 0.5) {
        f->adjective = old->adjective;
      } else {
        f->noun = old->noun;
      }
    }
  } while (key_is_used(p, f->adjective, f->noun));
}

static void choose_words(char *out, uint32_t count, random_state *random) {
  uint32_t left[VALUES];
  for (uint32_t i = 0; i < VALUES; i++) left[i] = i;
  out[0] = 0;
  for (uint32_t i = 0; i < count; i++) {
    uint32_t pick = i + random_below(random, VALUES - i), word = left[pick];
    left[pick] = left[i];
    if (i > 0) strcat(out, " ");
    strcat(out, values[word]);
  }
}

static fact *add_fact(plan *p, const char *attribute, double similar, random_state *random) {
  fact *f = &p->facts[p->count];
  f->attribute = attribute;
  choose_key(p, f, similar, random);
  if (strcmp(attribute, "list") == 0) {
    choose_words(f->value, 6, random);
  } else {
    snprintf(f->value, sizeof f->value, "%04u", random_below(random, 10000));
  }
  f->at = random_unit(random);
  p->count++;
  return f;
}

static void make_plan(plan *p, uint32_t task, double depth, random_state *random) {
  const char *attribute = task == TASK_COPY ? "list" : "code";
  uint32_t others = task == TASK_COPY ? 2 : 4;
  memset(p, 0, sizeof *p);
  p->asked = task_turns(task);
  for (uint32_t i = 0; i < p->asked; i++) add_fact(p, attribute, 0, random);
  if (task == TASK_CHAIN) {
    fact *first = &p->facts[0], *target = add_fact(p, attribute, 0, random);
    snprintf(first->value, sizeof first->value, "the code of the %s %s",
             adjectives[target->adjective], nouns[target->noun]);
  }
  for (uint32_t i = 0; i < others; i++) add_fact(p, attribute, 0.7, random);
  if (depth >= 0) p->facts[0].at = depth;
}

static bool add_words(const tokenizer *with, token_list *to, const char *text, failure *why) {
  return tokenizer_encode(with, text, strlen(text), false, to, why);
}

static bool add_statement(const tokenizer *with, token_list *to, const fact *f, failure *why) {
  char text[256];
  snprintf(text, sizeof text, " The %s of the %s %s is %s.", f->attribute, adjectives[f->adjective],
           nouns[f->noun], f->value);
  return add_words(with, to, text, why);
}

static bool add_question(const tokenizer *with, token_list *to, const fact *f, failure *why) {
  char text[128];
  snprintf(text, sizeof text, " Question: the %s of the %s %s is", f->attribute,
           adjectives[f->adjective], nouns[f->noun]);
  return add_words(with, to, text, why);
}

/* Tokens of all statements, questions and answers. */
static bool measure_frame(const plan *p, const task_sample *s, const tokenizer *with,
                          uint32_t *tokens, failure *why) {
  token_list list = {0};
  bool done = true;
  for (uint32_t i = 0; i < p->count && done; i++)
    done = add_statement(with, &list, &p->facts[i], why);
  for (uint32_t i = 0; i < p->asked && done; i++) {
    done = add_question(with, &list, &p->facts[i], why) && add_words(with, &list, " ", why) &&
           add_words(with, &list, s->expected[i], why) && add_words(with, &list, ".", why);
  }
  *tokens = list.count;
  token_list_release(&list);
  return done;
}

static bool add_due_facts(const plan *p, const tokenizer *with, token_list *to, bool *planted,
                          double place, failure *why) {
  for (;;) {
    uint32_t next = p->count;
    for (uint32_t i = 0; i < p->count; i++) {
      if (!planted[i] && (next == p->count || p->facts[i].at < p->facts[next].at)) next = i;
    }
    if (next == p->count || p->facts[next].at > place) return true;
    planted[next] = true;
    if (!add_statement(with, to, &p->facts[next], why)) return false;
  }
}

/* Facts between the sentences of a stretch of text that begins anywhere. */
static bool fill_haystack(const plan *p, const sentences *text, const tokenizer *with,
                          uint32_t room, uint32_t cursor, token_list *to, failure *why) {
  bool planted[MOST_FACTS] = {false};
  uint32_t used = 0, spread = room > EDGE_TOKENS ? room - EDGE_TOKENS : 1;
  for (uint32_t count = sentences_count(text);; cursor = (cursor + 1) % count) {
    uint32_t begin = text->starts.tokens[cursor], length = text->starts.tokens[cursor + 1] - begin;
    if (!add_due_facts(p, with, to, planted, (double)used / spread, why)) return false;
    if (used + length > room || length == 0) break;
    for (uint32_t i = 0; i < length; i++) {
      if (!token_list_push(to, text->tokens.tokens[begin + i], why)) return false;
    }
    used += length;
  }
  return add_due_facts(p, with, to, planted, 2, why);
}

static void expect_answers(const plan *p, uint32_t task, task_sample *out) {
  for (uint32_t i = 0; i < p->asked; i++) {
    int length = task == TASK_CHAIN
                     ? snprintf(out->expected[i], EXPECTED_BYTES, "the code of the %s %s is %.8s",
                                adjectives[p->facts[1].adjective], nouns[p->facts[1].noun],
                                p->facts[1].value)
                     : snprintf(out->expected[i], EXPECTED_BYTES, "%s", p->facts[i].value);
    (void)length;
    out->script.turns[i].expected = out->expected[i];
  }
}

bool task_make(task_sample *out, const sentences *text, const tokenizer *with, uint32_t task,
               uint32_t length, double depth, uint64_t seed, failure *why) {
  random_state random = {seed};
  plan p;
  uint32_t frame;
  script *s = &out->script;
  memset(out, 0, sizeof *out);
  make_plan(&p, task, depth, &random);
  expect_answers(&p, task, out);
  s->turn_count = p.asked;
  s->answer_tokens = 24;
  s->stops_at_period = true;
  bool done = measure_frame(&p, out, with, &frame, why);
  if (done && frame + EDGE_TOKENS + 1 > length) {
    done = fail(why, "a context of %u tokens is too short: facts and questions alone take %u",
                length, frame);
  }
  uint32_t cursor = random_below(&random, sentences_count(text));
  if (done && with->add_beginning) done = token_list_push(&s->prompt, with->beginning, why);
  done = done && fill_haystack(&p, text, with, length - 1 - frame, cursor, &s->prompt, why) &&
         add_question(with, &s->prompt, &p.facts[0], why);
  for (uint32_t i = 1; i < p.asked && done; i++) {
    done = add_question(with, &s->turns[i].tokens, &p.facts[i], why);
  }
  if (!done) task_release(out);
  return done;
}

void task_release(task_sample *out) { script_release(&out->script); }

bool task_is_right(const char *answer, const char *expected) {
  while (*answer == ' ') answer++;
  size_t length = strlen(expected);
  return strncmp(answer, expected, length) == 0 && strcmp(answer + length, ".") == 0;
}
