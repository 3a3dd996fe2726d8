#include "oracle.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lists.h"

double oracle_scale(const kvsift_policy_config *c) {
  return c->softmax_scale > 0 ? c->softmax_scale : 1 / sqrt(c->head_dim);
}

void oracle_logits(const toy *t, const kvsift_policy_config *c, uint32_t layer, uint32_t query_head, uint32_t query_token,
                   uint32_t tokens, double *logits) {
  const uint32_t kv_head = query_head / (c->query_heads / c->kv_heads);
  const float *q = toy_row(t, TOY_QUERY, layer, query_head, query_token);
  for (uint32_t i = 0; i < tokens; ++i) {
    const float *k = toy_row(t, TOY_KEY, layer, kv_head, i);
    double dot = 0;
    for (uint32_t d = 0; d < c->head_dim; ++d) dot += (double)q[d] * (double)k[d];
    logits[i] = dot * oracle_scale(c);
  }
}

void oracle_softmax(double *x, uint32_t tokens) {
  double max = x[0], sum = 0;
  for (uint32_t i = 1; i < tokens; ++i) max = x[i] > max ? x[i] : max;
  for (uint32_t i = 0; i < tokens; ++i) sum += x[i] = exp(x[i] - max);
  for (uint32_t i = 0; i < tokens; ++i) x[i] /= sum;
}

/* One page as a pseudo-token: its logit, and the mean of its values into `value`. */
static double page_moments(const toy *t, const kvsift_policy_config *c, uint32_t layer, uint32_t query_head,
                           uint32_t query_token, uint32_t begin, uint32_t end, double *value) {
  const uint32_t kv_head = query_head / (c->query_heads / c->kv_heads);
  const double n = end - begin, scale = oracle_scale(c);
  double dot = 0, x = 0;
  for (uint32_t d = 0; d < c->head_dim; ++d) {
    double mean = 0, square = 0;
    value[d] = 0;
    for (uint32_t i = begin; i < end; ++i) {
      mean += (double)toy_row(t, TOY_KEY, layer, kv_head, i)[d] / n;
      value[d] += (double)toy_row(t, TOY_VALUE, layer, kv_head, i)[d] / n;
    }
    for (uint32_t i = begin; i < end; ++i) square += pow((double)toy_row(t, TOY_KEY, layer, kv_head, i)[d] - mean, 2) / n;
    const double q = (double)toy_row(t, TOY_QUERY, layer, query_head, query_token)[d];
    dot += q * mean;
    x += q * q * square * scale * scale;
  }
  return dot * scale + log(1 + x / 2) + log(n);
}

typedef struct mixture {
  double max, sum, *out;
  uint32_t dim;
} mixture;

static void mix(mixture *m, double logit, const double *value) {
  if (logit > m->max) {
    const double shrink = exp(m->max - logit);
    m->sum *= shrink;
    for (uint32_t d = 0; d < m->dim; ++d) m->out[d] *= shrink;
    m->max = logit;
  }
  const double p = exp(logit - m->max);
  m->sum += p;
  for (uint32_t d = 0; d < m->dim; ++d) m->out[d] += p * value[d];
}

static void mix_tail(const toy *t, const kvsift_policy_config *c, const session_answer *a, uint32_t query_head,
                     uint32_t list, mixture *m, double *value) {
  for (uint32_t begin = 0; begin < a->tokens; begin += c->page_tokens) {
    const uint32_t end = begin + c->page_tokens < a->tokens ? begin + c->page_tokens : a->tokens;
    int kept = 0;
    for (uint32_t i = begin; i < end; ++i) kept |= list_keeps(a->selection, list, i);
    if (kept) continue;
    const double logit = page_moments(t, c, a->layer, query_head, a->tokens - 1, begin, end, value);
    mix(m, logit, value);
  }
}

static void mix_coreset(const toy *t, const kvsift_policy_config *c, const session_answer *a, uint32_t kv_head,
                        uint32_t list, const double *logits, mixture *m, double *value) {
  const kvsift_selection *sel = a->selection;
  const uint64_t at = (uint64_t)kv_head * sel->coreset_stride;
  for (uint32_t i = 0; i < sel->coreset_counts[kv_head]; ++i) {
    const uint32_t token = sel->coreset[at + i];
    const double weight = (double)sel->coreset_weights[at + i];
    if (list_keeps(sel, list, token) || weight <= 0) continue;
    for (uint32_t d = 0; d < c->head_dim; ++d) value[d] = (double)toy_row(t, TOY_VALUE, a->layer, kv_head, token)[d];
    mix(m, logits[token] + log(weight), value);
  }
}

void oracle_attend(const toy *t, const kvsift_policy_config *c, const session_answer *a, uint32_t query_head, double *out) {
  const uint32_t group = c->query_heads / c->kv_heads, kv_head = query_head / group;
  const uint32_t list = a->selection->per_query_head ? query_head : kv_head;
  double *logits = malloc(a->tokens * sizeof *logits), *value = malloc(c->head_dim * sizeof *value);
  mixture m = {-INFINITY, 0, out, c->head_dim};
  memset(out, 0, c->head_dim * sizeof *out);
  oracle_logits(t, c, a->layer, query_head, a->tokens - 1, a->tokens, logits);
  for (uint32_t i = 0; i < a->tokens; ++i) {
    if (!list_keeps(a->selection, list, i)) continue;
    for (uint32_t d = 0; d < c->head_dim; ++d) value[d] = (double)toy_row(t, TOY_VALUE, a->layer, kv_head, i)[d];
    mix(&m, logits[i], value);
  }
  if (a->selection->tail == KVSIFT_TAIL_MOMENTS) mix_tail(t, c, a, query_head, list, &m, value);
  if (a->selection->tail == KVSIFT_TAIL_BALANCE) mix_coreset(t, c, a, kv_head, list, logits, &m, value);
  for (uint32_t d = 0; d < c->head_dim; ++d) out[d] /= m.sum;
  free(logits);
  free(value);
}
