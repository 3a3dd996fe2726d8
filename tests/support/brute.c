#include "brute.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "brute_pages.h"
#include "lists.h"
#include "oracle.h"

enum { MOST = 256 }; /* tokens or blocks of a subject */

brute *brute_new(const subject *x) {
  const kvsift_policy_config *c = &x->config;
  brute *b = calloc(1, sizeof *b);
  b->x = x;
  b->lists = c->grouping == KVSIFT_GROUP_QUERY_HEAD ? c->query_heads : c->kv_heads;
  b->blocks = (c->max_tokens + c->block_tokens - 1) / c->block_tokens;
  b->sums = calloc((size_t)c->layers * b->lists * b->blocks, sizeof *b->sums);
  b->gone = calloc((size_t)c->layers * b->lists * b->blocks, sizeof *b->gone);
  return b;
}

void brute_free(brute *b) {
  free(b->sums);
  free(b->gone);
  free(b);
}

static uint64_t place(const brute *b, uint32_t layer, uint32_t list) {
  return ((uint64_t)layer * b->lists + list) * b->blocks;
}

/* The softmax row of one query head, over the tokens its list keeps (null: over all), pooled. */
static void pooled_row(const brute *b, uint32_t layer, uint32_t query_head, uint32_t tokens, const kvsift_selection *sel,
                       uint32_t list, double *peak, double *mass) {
  const kvsift_policy_config *c = &b->x->config;
  double row[MOST];
  oracle_logits(b->x->toy, c, layer, query_head, tokens - 1, tokens, row);
  for (uint32_t t = 0; sel != NULL && t < tokens; ++t) {
    if (!list_keeps(sel, list, t)) row[t] = -INFINITY;
  }
  oracle_softmax(row, tokens);
  for (uint32_t i = 0; i < b->blocks; ++i) peak[i] = mass[i] = 0;
  for (uint32_t t = 0; t < tokens; ++t) {
    const uint32_t i = t / c->block_tokens;
    peak[i] = fmax(peak[i], row[t]);
    mass[i] += row[t];
  }
}

/* The row that a list's method sees: its query heads' rows, averaged or maximised. */
static void list_row(const brute *b, uint32_t layer, uint32_t list, uint32_t tokens, const kvsift_selection *sel,
                     bool masses, double *out) {
  const kvsift_policy_config *c = &b->x->config;
  const uint32_t heads = c->query_heads / b->lists;
  double peak[MOST], mass[MOST];
  for (uint32_t i = 0; i < b->blocks; ++i) out[i] = 0;
  for (uint32_t q = list * heads; q < (list + 1) * heads; ++q) {
    pooled_row(b, layer, q, tokens, sel, list, peak, mass);
    for (uint32_t i = 0; i < b->blocks; ++i) {
      const double v = masses ? mass[i] : peak[i];
      out[i] = c->grouping == KVSIFT_GROUP_MAX ? fmax(out[i], v) : out[i] + v / heads;
    }
  }
}

static void learn(brute *b, uint32_t layer, uint32_t list, uint32_t tokens, const kvsift_selection *sel) {
  const kvsift_policy_config *c = &b->x->config;
  double row[MOST], *sums = b->sums + place(b, layer, list);
  const bool average = c->method == KVSIFT_METHOD_EMA;
  list_row(b, layer, list, tokens, sel, !average, row);
  for (uint32_t i = 0; i < b->blocks; ++i) {
    sums[i] = average ? (double)c->ema_decay * sums[i] + (1 - (double)c->ema_decay) * row[i] : sums[i] + row[i];
  }
}

void brute_prompt(brute *b) {
  const kvsift_policy_config *c = &b->x->config;
  uint32_t rows = 0;
  if (c->method == KVSIFT_METHOD_H2O) rows = b->x->prompt;
  if (c->method == KVSIFT_METHOD_EMA) rows = c->history_rows;
  if (c->method == KVSIFT_METHOD_SNAPKV || c->method == KVSIFT_METHOD_PYRAMIDKV) rows = c->window;
  if (rows > b->x->prompt) rows = b->x->prompt;
  for (uint32_t layer = c->dense_layers; layer < c->layers; ++layer) {
    for (uint32_t list = 0; list < b->lists; ++list) {
      for (uint32_t t = b->x->prompt - rows; t < b->x->prompt; ++t) learn(b, layer, list, t + 1, NULL);
    }
  }
}

void brute_observe(brute *b, const session_answer *a) {
  const kvsift_policy_config *c = &b->x->config;
  const kvsift_selection *sel = a->selection;
  if (a->layer < c->dense_layers) return;
  const bool full = sel->everything || sel->calibration;
  for (uint32_t list = 0; list < b->lists; ++list) {
    if (c->method == KVSIFT_METHOD_H2O || c->method == KVSIFT_METHOD_EMA) {
      learn(b, a->layer, list, a->tokens, full ? NULL : sel);
    }
    if (c->method != KVSIFT_METHOD_H2O || sel->everything) continue;
    for (uint32_t i = 0; i * c->block_tokens < a->tokens; ++i) {
      bool kept = false;
      for (uint32_t t = i * c->block_tokens; t < (i + 1) * c->block_tokens; ++t) kept |= list_keeps(sel, list, t) != 0;
      if (!kept) b->gone[place(b, a->layer, list) + i] = true;
    }
  }
}

/* Votes along the prompt, pooled; the average divides by the whole kernel at the edges too. */
static void smooth(const kvsift_policy_config *c, const double *votes, uint32_t count, double *out) {
  const int reach = (int)c->pool_kernel / 2;
  for (int i = 0; i < (int)count; ++i) {
    double sum = 0, best = -INFINITY;
    for (int j = i - reach; j <= i + reach; ++j) {
      if (j < 0 || j >= (int)count) continue;
      sum += votes[j];
      best = fmax(best, votes[j]);
    }
    out[i] = c->pooling == KVSIFT_POOL_AVG ? sum / c->pool_kernel : best;
  }
}

static uint32_t room(uint32_t budget, uint32_t fixed, uint32_t block) {
  return budget > fixed ? (budget - fixed) / block : 0;
}

static void score_votes(const brute *b, const session_answer *a, uint32_t list, brute_scores *s) {
  const kvsift_policy_config *c = &b->x->config;
  const uint32_t prompt = b->x->prompt, local = c->window > c->local_tokens ? c->window : c->local_tokens;
  const uint32_t budget = c->method == KVSIFT_METHOD_PYRAMIDKV ? pyramid_budget(c, a->layer, prompt) : budget_of(c, prompt);
  s->begin = c->sink_tokens / c->block_tokens;
  s->end = prompt > local ? (prompt - local) / c->block_tokens : 0;
  s->most = room(budget, c->sink_tokens + (local < prompt ? local : prompt), c->block_tokens);
  smooth(c, b->sums + place(b, a->layer, list), s->end, s->low);
}

void brute_score(const brute *b, const session_answer *a, uint32_t list, brute_scores *s) {
  const kvsift_policy_config *c = &b->x->config;
  const uint32_t blocks = (a->tokens + c->block_tokens - 1) / c->block_tokens;
  const double *sums = b->sums + place(b, a->layer, list);
  for (uint32_t i = 0; i < b->blocks; ++i) s->low[i] = sums[i];
  const uint32_t budget = budget_of(c, a->tokens);
  uint32_t local = (uint32_t)((double)c->recent_share * budget);
  local = local < c->local_tokens ? c->local_tokens : local;
  local = local > budget - c->sink_tokens ? budget - c->sink_tokens : local;
  if (local == 0) local = 1;
  s->begin = c->sink_tokens / c->block_tokens;
  s->end = blocks > local / c->block_tokens ? blocks - local / c->block_tokens : 0;
  s->most = room(budget, c->sink_tokens + local, c->block_tokens);
  if (c->method == KVSIFT_METHOD_QUEST || c->method == KVSIFT_METHOD_PAGE_STATS) {
    brute_page_scores(b, a, list, blocks, s->low, s->high);
    return;
  }
  if (c->method == KVSIFT_METHOD_SNAPKV || c->method == KVSIFT_METHOD_PYRAMIDKV) score_votes(b, a, list, s);
  for (uint32_t i = 0; i < b->blocks; ++i) {
    s->high[i] = s->low[i] * (1 + 3e-4) + 1e-7;
    s->low[i] = s->low[i] * (1 - 3e-4) - 1e-7;
    if (b->gone[place(b, a->layer, list) + i]) s->low[i] = s->high[i] = -INFINITY;
  }
}
