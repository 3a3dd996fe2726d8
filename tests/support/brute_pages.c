#include "brute_pages.h"

#include <math.h>

#include "oracle.h"

enum { MOST = 256 };

/* One channel of a page's keys. */
typedef struct channel {
  double least, greatest, mean, deviation;
} channel;

static channel channel_of(const brute *b, uint32_t layer, uint32_t kv_head, uint32_t begin, uint32_t end, uint32_t d) {
  channel x = {INFINITY, -INFINITY, 0, 0};
  const double n = end - begin;
  for (uint32_t t = begin; t < end; ++t) {
    const double k = (double)toy_row(b->x->toy, TOY_KEY, layer, kv_head, t)[d];
    x.least = fmin(x.least, k);
    x.greatest = fmax(x.greatest, k);
    x.mean += k / n;
  }
  for (uint32_t t = begin; t < end; ++t) {
    x.deviation += pow((double)toy_row(b->x->toy, TOY_KEY, layer, kv_head, t)[d] - x.mean, 2) / n;
  }
  x.deviation = sqrt(x.deviation);
  return x;
}

/* What int8 queries change besides: a code is off by half of a 127th of the greatest, and so is a square's; a deviation's
 * square by half of a 126th. */
static double code_error(double query_top, double means, double deviations, double steep, double q2, double d2,
                         double deviation_top) {
  if (steep == 0) return query_top * (means + deviations / 2) / 253;
  const double of_query = query_top * query_top / 253, of_deviation = deviation_top * deviation_top / 250;
  return query_top * means / 253 + steep * sqrt(of_query * d2 + of_deviation * (q2 + of_query));
}

/* Quest: the upper bound of the page's logits. Page statistics: q.mean + |q|.deviation / 2, or with a moments tail what the
 * page's largest logit is likely to be. *error: what the storage of mean and deviation (float16, or int8 of the row's
 * greatest) and float32 may change; a likely largest moves with the deviation by at most `steep` |q|. */
static double page_score(const brute *b, uint32_t layer, uint32_t query_head, uint32_t tokens, uint32_t page, double *error) {
  const kvsift_policy_config *c = &b->x->config;
  const uint32_t begin = page * c->page_tokens;
  const uint32_t end = begin + c->page_tokens < tokens ? begin + c->page_tokens : tokens;
  const float *q = toy_row(b->x->toy, TOY_QUERY, layer, query_head, tokens - 1);
  const double steep = sqrt(2 * log((double)(end - begin)));
  const int by_tail = c->method == KVSIFT_METHOD_PAGE_STATS && c->tail == KVSIFT_TAIL_MOMENTS;
  double score = 0, x2 = 0, sum = 0, mean_top = 0, deviation_top = 0, total = 0;
  double query_top = 0, means = 0, deviations = 0, q2 = 0, d2 = 0;
  for (uint32_t d = 0; d < c->head_dim; ++d) {
    const channel x = channel_of(b, layer, query_head / (c->query_heads / c->kv_heads), begin, end, d);
    const double size = fabs((double)q[d]);
    score += c->method == KVSIFT_METHOD_QUEST ? fmax((double)q[d] * x.least, (double)q[d] * x.greatest)
                                              : (double)q[d] * x.mean + (by_tail ? 0 : size * x.deviation / 2);
    x2 += pow(oracle_scale(c) * size * x.deviation, 2);
    mean_top = fmax(mean_top, fabs(x.mean));
    deviation_top = fmax(deviation_top, x.deviation);
    query_top = fmax(query_top, size);
    means += fabs(x.mean), deviations += x.deviation, q2 += size * size, d2 += x.deviation * x.deviation;
    sum += size * (fabs(x.mean) + (by_tail ? steep : 1) * x.deviation);
    total += size;
  }
  *error = 1e-5 * (fabs(score) + 1);
  if (c->method == KVSIFT_METHOD_PAGE_STATS) {
    const double slope = by_tail ? steep : 1;
    *error += c->moments_type == KVSIFT_I8 ? total * (mean_top + slope * deviation_top) / 253
                                           : sum / 1900 + total * (1 + slope) * 1e-7;
    if (c->moments_type == KVSIFT_I8) {
      *error += code_error(query_top, means, deviations, by_tail ? steep : 0, q2, d2, deviation_top);
    }
  }
  *error *= oracle_scale(c);
  return score * oracle_scale(c) + (by_tail ? steep * sqrt(x2) : 0);
}

void brute_page_scores(const brute *b, const session_answer *a, uint32_t list, uint32_t pages, double *low, double *high) {
  const kvsift_policy_config *c = &b->x->config;
  const uint32_t heads = c->query_heads / b->lists;
  double score[MOST], error[MOST];
  const bool shared = c->grouping != KVSIFT_GROUP_QUERY_HEAD;
  for (uint32_t i = 0; i < pages; ++i) low[i] = high[i] = 0;
  for (uint32_t q = list * heads; q < (list + 1) * heads; ++q) {
    double worst = 0;
    for (uint32_t i = 0; i < pages; ++i) {
      score[i] = page_score(b, a->layer, q, a->tokens, i, &error[i]);
      worst = fmax(worst, error[i]);
    }
    if (shared) oracle_softmax(score, pages);
    for (uint32_t i = 0; i < pages; ++i) {
      /* A softmax moves by the error of its own logit and that of the sum. */
      const double l = shared ? score[i] * exp(-error[i] - worst) : score[i] - error[i];
      const double h = shared ? score[i] * exp(error[i] + worst) : score[i] + error[i];
      low[i] = c->grouping == KVSIFT_GROUP_MAX ? fmax(low[i], l) : low[i] + l / heads;
      high[i] = c->grouping == KVSIFT_GROUP_MAX ? fmax(high[i], h) : high[i] + h / heads;
    }
  }
}
