#include "subject.h"

#include "cases.h"
#include "shapes.h"

const toy_form plain_form = {KVSIFT_F32, 0, false, false, 0};

static void begin(subject *x, uint64_t seed, kvsift_method method) {
  x->random = (test_random){seed * 1000 + method};
  x->config = shape_config(&x->random, method);
  x->toy = toy_new(seed, &x->config, plain_form);
  x->prompt = 1 + random_below(&x->random, x->config.max_tokens - 12);
  x->steps = 1 + random_below(&x->random, x->config.max_tokens - x->prompt - 8);
  if (x->steps > 40) x->steps = 40;
  const kvsift_policy_config *c = &x->config;
  cases_name("%s: %u layers (%u dense), %u/%u heads, d %u, %u tokens, block %u, page %u, budget %u share %g mass %g, "
             "sinks %u, local %u, grouping %u, tail %u, rollback %u, prompt %u, steps %u",
             kvsift_method_name(method), c->layers, c->dense_layers, c->query_heads, c->kv_heads, c->head_dim,
             c->max_tokens, c->block_tokens, c->page_tokens, c->budget_tokens, (double)c->budget_share,
             (double)c->target_mass, c->sink_tokens, c->local_tokens, c->grouping, c->tail, c->rollback_tokens,
             x->prompt, x->steps);
}

void each_subject_of(kvsift_method method, uint32_t count, void (*property)(subject *x)) {
  if (!shape_supported(method)) return;
  for (cases c = cases_begin(count); cases_next(&c);) {
    subject x;
    begin(&x, c.seed, method);
    property(&x);
    toy_free(x.toy);
  }
}

void each_subject(uint32_t count, void (*property)(subject *x)) {
  for (kvsift_method m = 0; m < KVSIFT_METHOD_COUNT; ++m) each_subject_of(m, count, property);
}

void expect_same(const session *a, const session *b, const char *what) {
  expect(a->digest == b->digest, "%s: another answer", what);
}
