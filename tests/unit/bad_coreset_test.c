/* Coresets as a caller might spoil them: what attention reads of the cache is checked before it is read. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "cases.h"
#include "mistakes.h"

enum { PAGE = 16, MOST = 512 };
static const toy_form paged = {KVSIFT_F32, PAGE, true, false, 0};

static kvsift_policy_config config_of(void) {
  kvsift_policy_config c = {.struct_size = sizeof c};
  must(NULL, kvsift_policy_config_init(&c, KVSIFT_METHOD_STREAMING));
  c.tail = KVSIFT_TAIL_BALANCE;
  c.layers = 2;
  c.query_heads = 4;
  c.kv_heads = 2;
  c.head_dim = 16;
  c.max_tokens = 200;
  c.budget_tokens = 24;
  c.sink_tokens = 4;
  c.local_tokens = 8;
  c.balance_group = 32;
  c.coreset_tokens = 128;
  c.dense_tokens = KVSIFT_DENSE_OFF;
  return c;
}

static kvsift_status attend(mistake_room *m, const kvsift_cache *cache, const kvsift_selection *s) {
  return kvsift_attend(m->p, m->layer, &m->query, cache, s, m->out, NULL);
}
static kvsift_status attend_at_once(mistake_room *m, const kvsift_cache *cache, const kvsift_selection *s) {
  return kvsift_decode_attend(m->p, m->layer, &m->query, cache, s, m->out);
}
static kvsift_status attend_tail(mistake_room *m, const kvsift_cache *cache, const kvsift_selection *s) {
  return kvsift_attend_tail(m->p, m->layer, &m->query, cache, s, m->out, m->log_sum_exp);
}

typedef kvsift_status (*call)(mistake_room *m, const kvsift_cache *cache, const kvsift_selection *s);

static void check_lists(mistake_room *m, call make) {
  kvsift_selection s = m->selection;
  uint32_t tokens[MOST], counts[2] = {1, s.coreset_stride + 1};
  cases_name("coreset lists");
  s.coreset_counts = counts;
  mistakes_check(m, make(m, &m->cache, &s), KVSIFT_INVALID_ARGUMENT, "coreset_counts[1]|coreset_stride");
  s = m->selection;
  s.coreset_weights = NULL;
  mistakes_check(m, make(m, &m->cache, &s), KVSIFT_INVALID_ARGUMENT, "coreset_weights");
  s = m->selection;
  expect(2 * s.coreset_stride <= MOST && s.coreset_counts[1] > 0, "no coreset to spoil");
  memcpy(tokens, s.coreset, 2 * s.coreset_stride * sizeof *tokens);
  s.coreset = tokens;
  for (uint32_t far = 0; far < 2; ++far) {
    tokens[s.coreset_stride] = far == 0 ? m->tokens : 0x7fffffffu;
    mistakes_check(m, make(m, &m->cache, &s), KVSIFT_INVALID_ARGUMENT, "selection->coreset of KV head 1|entry 0");
  }
}

/* A page that only the coreset needs is not in the table. */
static void check_pages(mistake_room *m, call make) {
  const kvsift_selection *s = &m->selection;
  int32_t table[2 * MOST];
  kvsift_cache cache = m->cache;
  memcpy(table, cache.block_table, 2 * cache.block_table_stride * sizeof *table);
  cache.block_table = table;
  const uint32_t page = s->coreset[s->coreset_counts[0] / 2] / PAGE;
  expect(page > 0 && page < (m->tokens - 9) / PAGE, "the coreset's middle is among sinks or newest tokens");
  table[page] = -1;
  cases_name("a coreset's page is away");
  mistakes_check(m, make(m, &cache, s), KVSIFT_INVALID_ARGUMENT, "cache->block_table|KV head 0 is -1");
}

static void test_coresets(void **state) {
  (void)state;
  static const call calls[] = {attend, attend_at_once, attend_tail};
  const kvsift_policy_config c = config_of();
  for (uint32_t i = 0; i < 3; ++i) {
    mistake_room m;
    mistakes_begin(&m, &c, paged, ATTENDED);
    check_lists(&m, calls[i]);
    check_pages(&m, calls[i]);
    mistakes_check(&m, calls[i](&m, NULL, &m.selection), KVSIFT_INVALID_ARGUMENT, "cache is null");
    mistakes_end(&m);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_coresets)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
