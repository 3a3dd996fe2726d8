/* Each method's choice against scores computed the long way from its definition (support/brute.h): no block left out may
 * have a score that is certainly above that of a chosen one, and as many are chosen as the budget or the target asks for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <math.h>
#include <stdlib.h>

#include <cmocka.h>

#include "brute.h"
#include "cases.h"
#include "lists.h"
#include "shapes.h"

enum { MOST = 256 };

typedef enum { LEFT_OUT, CHOSEN, UNKNOWN } fate;

/* Tokens kept whatever the scores: sinks and the newest. */
static void always_kept(const subject *x, const session_answer *a, uint32_t *sinks, uint32_t *local_begin) {
  const kvsift_policy_config *c = &x->config;
  const bool once = c->method == KVSIFT_METHOD_SNAPKV || c->method == KVSIFT_METHOD_PYRAMIDKV;
  const uint32_t budget = budget_of(c, a->tokens);
  uint32_t end = a->tokens, local = (uint32_t)((double)c->recent_share * budget);
  local = local < c->local_tokens ? c->local_tokens : local;
  local = local > budget - c->sink_tokens ? budget - c->sink_tokens : local;
  if (local == 0) local = 1;
  if (once) {
    end = x->prompt;
    local = c->window > c->local_tokens ? c->window : c->local_tokens;
  }
  *sinks = c->sink_tokens;
  *local_begin = end > local ? end - local : 0;
}

/* Whether the scores chose a block: told by its tokens that are not kept anyway. */
static fate fate_of(const subject *x, const session_answer *a, uint32_t list, uint32_t block) {
  uint32_t sinks, local_begin;
  always_kept(x, a, &sinks, &local_begin);
  for (uint32_t t = block * x->config.block_tokens; t < (block + 1) * x->config.block_tokens && t < a->tokens; ++t) {
    if (t < sinks || t >= local_begin) continue;
    return list_keeps(a->selection, list, t) ? CHOSEN : LEFT_OUT;
  }
  return UNKNOWN;
}

static void check_order(const subject *x, const session_answer *a, uint32_t list, const brute_scores *s) {
  double worst = INFINITY, best = -INFINITY;
  uint32_t worst_at = 0, best_at = 0;
  for (uint32_t i = s->begin; i < s->end; ++i) {
    const fate f = fate_of(x, a, list, i);
    if (f == CHOSEN && s->high[i] < worst) worst = s->high[worst_at = i];
    if (f == LEFT_OUT && s->low[i] > best) best = s->low[best_at = i];
  }
  expect(best <= worst, "layer %u, list %u, %u tokens: block %u with a score of at most %.9g was chosen, block %u with "
         "at least %.9g was not", a->layer, list, a->tokens, worst_at, worst, best_at, best);
}

/* Blocks that could be chosen, that were, and of which nobody can tell. */
static void count_fates(const subject *x, const session_answer *a, uint32_t list, const brute_scores *s,
                        uint32_t *candidates, uint32_t *chosen, uint32_t *unknown) {
  *candidates = *chosen = *unknown = 0;
  for (uint32_t i = s->begin; i < s->end; ++i) {
    if (s->high[i] == -INFINITY) continue;
    const fate f = fate_of(x, a, list, i);
    ++*candidates;
    *chosen += f == CHOSEN;
    *unknown += f == UNKNOWN;
  }
}

static void check_count(const subject *x, const session_answer *a, uint32_t list, const brute_scores *s) {
  uint32_t candidates, chosen, unknown;
  count_fates(x, a, list, s, &candidates, &chosen, &unknown);
  const uint32_t wanted = s->most < candidates ? s->most : candidates;
  expect(chosen <= wanted && chosen + unknown >= wanted, "layer %u, list %u, %u tokens: %u blocks chosen of %u, the "
         "budget has room for %u", a->layer, list, a->tokens, chosen, candidates, wanted);
}

typedef struct target {
  double share[MOST], slack;
} target;

/* Shares of all blocks by their scores, and how far rounding may move a sum of them. */
static void shares_of(const subject *x, const brute_scores *s, uint32_t blocks, target *t) {
  const kvsift_method m = x->config.method;
  const bool logits = (m == KVSIFT_METHOD_QUEST || m == KVSIFT_METHOD_PAGE_STATS) &&
                      x->config.grouping == KVSIFT_GROUP_QUERY_HEAD;
  double total = 0, wide = 0, top = -INFINITY;
  for (uint32_t i = 0; i < blocks; ++i) top = fmax(top, s->high[i]);
  for (uint32_t i = 0; i < blocks; ++i) {
    const double low = logits ? exp(s->low[i] - top) : fmax(0, s->low[i]);
    const double high = logits ? exp(s->high[i] - top) : fmax(0, s->high[i]);
    t->share[i] = (low + high) / 2;
    total += t->share[i];
    wide += high - low;
  }
  for (uint32_t i = 0; i < blocks && total > 0; ++i) t->share[i] /= total;
  t->slack = total > 0 ? wide / total + 1e-5 : 1;
}

static int larger_first(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return x < y ? 1 : x > y ? -1 : 0;
}

/* As few of the best blocks as reach the target, at most what the budget has room for. */
static void check_target(const subject *x, const session_answer *a, uint32_t list, const brute_scores *s) {
  const uint32_t blocks = (a->tokens + x->config.block_tokens - 1) / x->config.block_tokens;
  target t;
  double best[MOST], mass = 0;
  uint32_t candidates, chosen, unknown, count = 0, least = 0, most = 0;
  shares_of(x, s, blocks, &t);
  count_fates(x, a, list, s, &candidates, &chosen, &unknown);
  for (uint32_t i = 0; i < blocks; ++i) {
    if (i < s->begin || i >= s->end) mass += t.share[i];
    else if (s->high[i] != -INFINITY) best[count++] = t.share[i];
  }
  qsort(best, count, sizeof *best, larger_first);
  const double goal = (double)x->config.target_mass;
  for (uint32_t i = 0; i < count && i < s->most; ++i) {
    least += mass < goal - t.slack;
    most += mass < goal + t.slack;
    mass += best[i];
  }
  expect(chosen <= most && chosen + unknown >= least, "layer %u, list %u, %u tokens: %u (and perhaps %u) blocks chosen "
         "for a mass of %g, %u to %u are needed", a->layer, list, a->tokens, chosen, unknown, goal, least, most);
}

static void look_choice(session *s, const session_answer *a) {
  brute *b = s->context;
  const bool once = s->config.method == KVSIFT_METHOD_SNAPKV || s->config.method == KVSIFT_METHOD_PYRAMIDKV;
  double low[MOST], high[MOST];
  for (uint32_t list = 0; list < a->selection->lists && !a->selection->everything; ++list) {
    brute_scores scores = {.low = low, .high = high};
    brute_score(b, a, list, &scores);
    check_order(b->x, a, list, &scores);
    if (s->config.target_mass > 0 && !once) check_target(b->x, a, list, &scores);
    else check_count(b->x, a, list, &scores);
  }
  brute_observe(b, a);
}

static void choice_property(subject *x) {
  kvsift_policy_config *c = &x->config;
  c->verify_blocks = 0;
  /* Approximate tails move the rows that H2O and EMA learn from. */
  if (c->method == KVSIFT_METHOD_H2O || c->method == KVSIFT_METHOD_EMA) c->tail = KVSIFT_TAIL_NONE;
  session *s = session_new(c, x->toy);
  brute *b = brute_new(x);
  s->look = look_choice;
  s->context = b;
  session_prompt(s, x->prompt);
  brute_prompt(b);
  session_steps(s, x->steps < 12 ? x->steps : 12);
  brute_free(b);
  session_free(s);
}

static void test_choices(void **state) {
  (void)state;
  static const kvsift_method scored[] = {KVSIFT_METHOD_H2O,   KVSIFT_METHOD_SNAPKV,     KVSIFT_METHOD_PYRAMIDKV,
                                         KVSIFT_METHOD_QUEST, KVSIFT_METHOD_PAGE_STATS, KVSIFT_METHOD_EMA};
  for (uint32_t i = 0; i < sizeof scored / sizeof scored[0]; ++i) each_subject_of(scored[i], 40, choice_property);
}

static void look_streaming(session *s, const session_answer *a) {
  const kvsift_policy_config *c = &s->config;
  if (a->selection->everything) return;
  const uint32_t recent = budget_of(c, a->tokens) - c->sink_tokens;
  for (uint32_t list = 0; list < a->selection->lists; ++list) {
    for (uint32_t t = 0; t < a->tokens; ++t) {
      const bool kept = t < c->sink_tokens || t >= a->tokens - recent;
      expect(list_keeps(a->selection, list, t) == kept, "list %u, token %u of %u", list, t, a->tokens);
    }
  }
}

static void streaming_property(subject *x) {
  session *s = session_new(&x->config, x->toy);
  s->look = look_streaming;
  session_prompt(s, x->prompt);
  session_steps(s, x->steps);
  session_free(s);
}

static void test_streaming(void **state) {
  (void)state;
  each_subject_of(KVSIFT_METHOD_STREAMING, 30, streaming_property);
}

/* Philox4x32-10 from its definition. */
static uint32_t philox(uint64_t key, uint32_t token, uint32_t draw, uint32_t head, uint32_t layer) {
  uint32_t x[4] = {token, draw, head, layer}, k[2] = {(uint32_t)key, (uint32_t)(key >> 32)};
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = (uint64_t)x[0] * 0xD2511F53u, b = (uint64_t)x[2] * 0xCD9E8D57u;
    const uint32_t next[4] = {(uint32_t)(b >> 32) ^ x[1] ^ k[0], (uint32_t)b, (uint32_t)(a >> 32) ^ x[3] ^ k[1],
                              (uint32_t)a};
    for (int i = 0; i < 4; ++i) x[i] = next[i];
    k[0] += 0x9E3779B9u;
    k[1] += 0xBB67AE85u;
  }
  return x[0];
}

/* Every block between sinks and local tokens has a draw; the largest stay, ties to the lower block. */
static void look_uniform(session *s, const session_answer *a) {
  const kvsift_policy_config *c = &s->config;
  const uint32_t prompt = *(const uint32_t *)s->context, size = c->block_tokens;
  const uint32_t begin = (c->sink_tokens + size - 1) / size, fixed = c->sink_tokens + c->local_tokens;
  const uint32_t end = prompt > c->local_tokens ? (prompt - c->local_tokens) / size : 0;
  const uint32_t most = (budget_of(c, prompt) - fixed) / size;
  for (uint32_t list = 0; list < a->selection->lists && !a->selection->everything; ++list) {
    for (uint32_t i = begin; i < end; ++i) {
      const uint32_t own = philox(c->seed, i, 0x756e69, list, a->layer) >> 8;
      uint32_t before = 0;
      for (uint32_t j = begin; j < end; ++j) {
        const uint32_t other = philox(c->seed, j, 0x756e69, list, a->layer) >> 8;
        before += other > own || (other == own && j < i);
      }
      expect(list_keeps(a->selection, list, i * size) == (before < most), "list %u, block %u: %u draws are larger, %u stay",
             list, i, before, most);
    }
  }
}

static void uniform_property(subject *x) {
  session *s = session_new(&x->config, x->toy);
  s->look = look_uniform;
  s->context = &x->prompt;
  session_prompt(s, x->prompt);
  session_steps(s, 2);
  session_free(s);
}

static void test_uniform(void **state) {
  (void)state;
  each_subject_of(KVSIFT_METHOD_UNIFORM, 15, uniform_property);
}

int main(void) {
  print_message("skipped: attention-predictor's choice is tested in predictor and conformance tests\n");
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_choices),
      cmocka_unit_test(test_streaming),
      cmocka_unit_test(test_uniform),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
