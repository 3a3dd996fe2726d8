/* Threads that split the heads of each layer, with a barrier after each layer, give the bits of one thread. */
#define _POSIX_C_SOURCE 200809L
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cases.h"
#include "subject.h"

enum { THREADS = 2 };

/* One layer of a prompt or a decode step for one thread's share of the KV heads. */
typedef struct share {
  session *s;
  uint32_t layer, first, heads;
  uint32_t prompt;  /* its tokens; 0: a decode step */
  kvsift_status status;
} share;

static kvsift_status keys_of(session *s, uint32_t layer, const kvsift_query *q, uint32_t tokens) {
  const kvsift_view keys = toy_view(s->toy, TOY_KEY, layer, s->tokens);
  const kvsift_view values = toy_view(s->toy, TOY_VALUE, layer, s->tokens);
  return kvsift_observe_keys(s->policy, layer, q, s->tokens, tokens, &keys, &values);
}

static void work_prompt(share *x) {
  session *s = x->s;
  const uint32_t end = s->tokens + x->prompt;
  kvsift_query q = session_query(s, x->layer, end, x->prompt);
  const kvsift_cache cache = toy_cache(s->toy, x->layer, end);
  q.first_kv_head = x->first;
  q.kv_heads = x->heads;
  x->status = keys_of(s, x->layer, &q, x->prompt);
  if (x->status == KVSIFT_OK) x->status = kvsift_prefill_attend(s->policy, x->layer, &q, &cache, s->prompt_out);
}

static void work_step(share *x) {
  session *s = x->s;
  kvsift_query q = session_query(s, x->layer, s->tokens + 1, 1);
  const kvsift_cache cache = toy_cache(s->toy, x->layer, s->tokens + 1);
  kvsift_selection sel = {.struct_size = sizeof sel};
  kvsift_observation o = {.struct_size = sizeof o, .block_stride = s->block_stride, .block_max = s->block_max,
                          .block_mass = s->block_mass, .log_sum_exp = s->log_sum_exp};
  q.first_kv_head = x->first;
  q.kv_heads = x->heads;
  x->status = keys_of(s, x->layer, &q, 1);
  if (x->status == KVSIFT_OK) x->status = kvsift_select_blocks(s->policy, x->layer, &q, &sel);
  if (x->status == KVSIFT_OK && s->at_once) {
    x->status = kvsift_decode_attend(s->policy, x->layer, &q, &cache, &sel, s->out);
  } else {
    if (x->status == KVSIFT_OK) x->status = kvsift_attend(s->policy, x->layer, &q, &cache, &sel, s->out, &o);
    if (x->status == KVSIFT_OK) x->status = kvsift_observe_attention(s->policy, x->layer, &q, &o);
  }
  if (x->status == KVSIFT_OK && s->config.method == KVSIFT_METHOD_ATTENTION_PREDICTOR) {
    x->status = kvsift_predict_next(s->policy, x->layer, &q);
  }
  /* A wrong call fails on all threads at once: one of them is heard. */
  if (x->status == KVSIFT_OK && kvsift_select_blocks(s->policy, x->layer, &q, NULL) == KVSIFT_OK) x->status = -1;
}

static void *work(void *context) {
  share *x = context;
  if (x->prompt > 0) work_prompt(x);
  else work_step(x);
  return NULL;
}

static void run_layer(session *s, uint32_t layer, uint32_t prompt, uint32_t threads) {
  const uint32_t heads = s->config.kv_heads;
  pthread_t thread[THREADS];
  share shares[THREADS];
  for (uint32_t i = 0; i < threads; ++i) {
    const uint32_t begin = heads * i / threads, end = heads * (i + 1) / threads;
    shares[i] = (share){s, layer, begin, end - begin, prompt, KVSIFT_OK};
    if (i + 1 < threads) expect(pthread_create(&thread[i], NULL, work, &shares[i]) == 0, "no thread");
  }
  work(&shares[threads - 1]);
  for (uint32_t i = 0; i + 1 < threads; ++i) pthread_join(thread[i], NULL);
  for (uint32_t i = 0; i < threads; ++i) {
    expect(shares[i].status == KVSIFT_OK, "thread %u: %s: %s", i, kvsift_status_string(shares[i].status),
           kvsift_last_error(s->policy));
  }
  const float *out = prompt > 0 ? s->prompt_out : s->out;
  session_add(s, out, 4ull * (prompt > 0 ? prompt : 1) * s->config.query_heads * s->config.head_dim);
}

static session *run(const subject *x, uint32_t threads, bool at_once) {
  session *s = session_new(&x->config, x->toy);
  s->at_once = at_once;
  for (uint32_t layer = 0; layer < x->config.layers && x->prompt > 0; ++layer) run_layer(s, layer, x->prompt, threads);
  must(s->policy, kvsift_advance(s->policy, x->prompt));
  s->tokens += x->prompt;
  for (uint32_t step = 0; step < x->steps && step < 8; ++step) {
    for (uint32_t layer = 0; layer < x->config.layers; ++layer) run_layer(s, layer, 0, threads);
    must(s->policy, kvsift_advance(s->policy, 1));
    ++s->tokens;
  }
  return s;
}

static void threads_property(subject *x) {
  if (x->config.kv_heads < THREADS) return;
  session *one = run(x, 1, false);
  for (int at_once = 0; at_once < 2; ++at_once) {
    session *many = run(x, THREADS, at_once != 0);
    expect_same(one, many, at_once != 0 ? "split over threads that learn while they attend" : "split over threads");
    session_free(many);
  }
  session_free(one);
}

static void test_threads(void **state) {
  (void)state;
  each_subject(6, threads_property);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_threads)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
