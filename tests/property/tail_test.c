/* Outputs against attention in float64: the kept tokens, and the moments of the pages left out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <math.h>

#include <cmocka.h>

#include "cases.h"
#include "oracle.h"
#include "subject.h"

/* Moments are stored in float16 or int8; without a tail only float32 rounding is left. */
static double tolerance(const session *s, const session_answer *a) {
  if (a->selection->tail != KVSIFT_TAIL_MOMENTS) return 2e-5;
  return s->config.moments_type == KVSIFT_I8 ? 0.15 : 6e-3;
}

static void look_output(session *s, const session_answer *a) {
  const uint32_t dim = s->config.head_dim;
  double expected[KVSIFT_MAX_HEAD_DIM];
  for (uint32_t q = 0; q < s->config.query_heads; ++q) {
    double error = 0, size = 0;
    oracle_attend(s->toy, &s->config, a, q, expected);
    for (uint32_t d = 0; d < dim; ++d) {
      const double x = (double)a->out[q * dim + d];
      expect(isfinite(x), "output %u of query head %u is %g", d, q, x);
      error += pow(x - expected[d], 2);
      size += pow(expected[d], 2);
    }
    const double bound = tolerance(s, a) * (sqrt(size) + 0.05 * sqrt(dim));
    expect(sqrt(error) <= bound, "layer %u, query head %u, %u tokens: the output is off by %g of %g, at most %g is due to "
           "rounding", a->layer, q, a->tokens, sqrt(error), sqrt(size), bound);
  }
}

static void output_property(subject *x) {
  session *s = session_new(&x->config, x->toy);
  s->look = look_output;
  session_prompt(s, x->prompt);
  session_steps(s, x->steps < 6 ? x->steps : 6);
  session_free(s);
}

static void test_outputs(void **state) {
  (void)state;
  each_subject(30, output_property);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_outputs)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
