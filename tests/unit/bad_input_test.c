/* Wrong arguments of the calls of a decode step: the right status, a sentence with name and value, and a policy that goes
 * on as if it had not been called. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cases.h"
#include "mistakes.h"
#include "view_mistakes.h"

static const toy_form plain = {KVSIFT_F32, 0, false, false, 0};
static const toy_form paged = {KVSIFT_F32, 16, true, false, 0};

static kvsift_policy_config config_of(kvsift_method method) {
  kvsift_policy_config c = {.struct_size = sizeof c};
  must(NULL, kvsift_policy_config_init(&c, method));
  c.dense_tokens = KVSIFT_DENSE_OFF;
  c.layers = 3;
  c.dense_layers = 1;
  c.query_heads = 4;
  c.kv_heads = 2;
  c.head_dim = 16;
  c.max_tokens = 200;
  c.block_tokens = c.page_tokens = 8;
  c.budget_tokens = 40;
  c.sink_tokens = 4;
  c.local_tokens = 8;
  c.tail = KVSIFT_TAIL_MOMENTS;
  c.rollback_tokens = 4;
  c.calibration_period = 0;
  return c;
}

/* A call with one thing wrong. */
typedef struct mistake {
  const char *name;
  kvsift_status (*make)(mistake_room *m);
  kvsift_status status;
  const char *words;
} mistake;

static void check_all(mistake_room *m, const mistake *list, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    cases_name("%s", list[i].name);
    mistakes_check(m, list[i].make(m), list[i].status, list[i].words);
  }
}

#define CALL(name) static kvsift_status name(mistake_room *m)
#define COUNT(list) (sizeof(list) / sizeof(list)[0])

static kvsift_status keys(mistake_room *m, uint32_t layer, const kvsift_query *heads, uint32_t first, uint32_t tokens) {
  return kvsift_observe_keys(m->p, layer, heads, first, tokens, &m->keys, &m->values);
}

CALL(keys_layer) { return keys(m, 3, NULL, m->s->tokens, 1); }
CALL(keys_no_keys) { return kvsift_observe_keys(m->p, m->layer, NULL, m->s->tokens, 1, NULL, &m->values); }
CALL(keys_no_values) { return kvsift_observe_keys(m->p, m->layer, NULL, m->s->tokens, 1, &m->keys, NULL); }
CALL(keys_early) { return keys(m, m->layer, NULL, m->s->tokens - 1, 1); }
CALL(keys_late) { return keys(m, m->layer, NULL, m->s->tokens + 1, 1); }
CALL(keys_many) { return keys(m, m->layer, NULL, m->s->tokens, 150); }
CALL(keys_wrap) { return keys(m, m->layer, NULL, UINT32_MAX, 2); }
CALL(keys_head_size) {
  kvsift_query q = {.struct_size = 4};
  return keys(m, m->layer, &q, m->s->tokens, 1);
}
CALL(keys_head) {
  kvsift_query q = {.struct_size = sizeof q, .first_kv_head = 2};
  return keys(m, m->layer, &q, m->s->tokens, 1);
}
CALL(keys_heads) {
  kvsift_query q = {.struct_size = sizeof q, .first_kv_head = 1, .kv_heads = UINT32_MAX};
  return keys(m, m->layer, &q, m->s->tokens, 1);
}
CALL(select_early) { return kvsift_select_blocks(m->p, m->layer, &m->query, &m->selection); }

static const mistake before[] = {
    {"observe_keys, layer", keys_layer, KVSIFT_INVALID_ARGUMENT, "layer is 3"},
    {"observe_keys, null keys", keys_no_keys, KVSIFT_INVALID_ARGUMENT, "keys is null"},
    {"observe_keys, null values", keys_no_values, KVSIFT_INVALID_ARGUMENT, "values is null"},
    {"observe_keys, seen token", keys_early, KVSIFT_OUT_OF_ORDER, "first_token is 63"},
    {"observe_keys, later token", keys_late, KVSIFT_OUT_OF_ORDER, "first_token is 65|64 tokens"},
    {"observe_keys, too many", keys_many, KVSIFT_CAPACITY, "tokens 150|max_tokens 200"},
    {"observe_keys, sum wraps", keys_wrap, KVSIFT_CAPACITY, "first_token 4294967295"},
    {"observe_keys, struct_size", keys_head_size, KVSIFT_INVALID_STRUCT_SIZE, "struct_size is 4"},
    {"observe_keys, first head", keys_head, KVSIFT_INVALID_ARGUMENT, "first_kv_head 2"},
    {"observe_keys, heads", keys_heads, KVSIFT_INVALID_ARGUMENT, "kv_heads 4294967295"},
    {"select before keys", select_early, KVSIFT_OUT_OF_ORDER, "query->tokens is 65|64 tokens"},
};

static void check_key_views(mistake_room *m) {
  for (uint32_t i = 0; i < VIEW_MISTAKES; ++i) {
    const char *word;
    for (uint32_t which = 0; which < 2; ++which) {
      kvsift_view k = m->keys, v = m->values;
      cases_name("observe_keys, %s, view mistake %u", which ? "values" : "keys", i);
      const kvsift_status status = view_mistake(which ? &v : &k, i, &word);
      mistakes_check(m, kvsift_observe_keys(m->p, m->layer, NULL, m->s->tokens, 1, &k, &v), status, word);
      expect(strstr(kvsift_last_error(m->p), which ? "values" : "keys") != NULL, "%s", kvsift_last_error(m->p));
    }
  }
}

static void check_key_numbers(mistake_room *m) {
  static const float bad[] = {NAN, INFINITY, -INFINITY};
  float rows[2 * 16] = {0};
  kvsift_view v = {rows, KVSIFT_F32, 0, 2 * 16 * 4, 16 * 4, 0, NULL, 0, 0, 0};
  for (uint32_t i = 0; i < 2 * 16 * 3; ++i) {
    rows[i / 3] = bad[i % 3];
    cases_name("observe_keys, element %u is %g", i / 3, (double)bad[i % 3]);
    mistakes_check(m, kvsift_observe_keys(m->p, m->layer, NULL, m->s->tokens, 1, &v, &m->values), KVSIFT_NOT_FINITE, "keys");
    mistakes_check(m, kvsift_observe_keys(m->p, m->layer, NULL, m->s->tokens, 1, &m->keys, &v), KVSIFT_NOT_FINITE, "values");
    rows[i / 3] = 0;
  }
}

static void test_keys(void **state) {
  (void)state;
  const kvsift_policy_config c = config_of(KVSIFT_METHOD_EMA);
  mistake_room m;
  mistakes_begin(&m, &c, plain, BEFORE_STEP);
  check_all(&m, before, COUNT(before));
  check_key_views(&m);
  check_key_numbers(&m);
  mistakes_end(&m);
}

static kvsift_status choose(mistake_room *m, uint32_t layer, const kvsift_query *q) {
  kvsift_selection sel = {.struct_size = sizeof sel};
  return kvsift_select_blocks(m->p, layer, q, &sel);
}

CALL(select_layer) { return choose(m, UINT32_MAX, &m->query); }
CALL(select_no_query) { return choose(m, m->layer, NULL); }
CALL(select_no_selection) { return kvsift_select_blocks(m->p, m->layer, &m->query, NULL); }
CALL(select_selection_size) {
  kvsift_selection sel = {.struct_size = 12};
  return kvsift_select_blocks(m->p, m->layer, &m->query, &sel);
}

/* select with one field of the query replaced. */
#define QUERY_CALL(name, field, value)  \
  CALL(name) {                          \
    kvsift_query q = m->query;          \
    q.field = value;                    \
    return choose(m, m->layer, &q);     \
  }
QUERY_CALL(select_size, struct_size, sizeof q - 1)
QUERY_CALL(select_none, tokens, 0)
QUERY_CALL(select_old, tokens, m->s->tokens)
QUERY_CALL(select_ahead, tokens, m->tokens + 1)
QUERY_CALL(select_far, tokens, 201)
QUERY_CALL(select_farthest, tokens, UINT32_MAX)
QUERY_CALL(select_rows, rows, 2)
QUERY_CALL(select_head, first_kv_head, 7)
QUERY_CALL(select_heads, kv_heads, 3)

static const mistake choosing[] = {
    {"select, layer", select_layer, KVSIFT_INVALID_ARGUMENT, "layer is 4294967295"},
    {"select, null query", select_no_query, KVSIFT_INVALID_ARGUMENT, "query is null"},
    {"select, null selection", select_no_selection, KVSIFT_INVALID_ARGUMENT, "selection is null"},
    {"select, selection's size", select_selection_size, KVSIFT_INVALID_STRUCT_SIZE, "selection->struct_size is 12"},
    {"select, query's size", select_size, KVSIFT_INVALID_STRUCT_SIZE, "query->struct_size is"},
    {"select, no tokens", select_none, KVSIFT_OUT_OF_ORDER, "query->tokens is 0"},
    {"select, without the new token", select_old, KVSIFT_OUT_OF_ORDER, "query->tokens is 64"},
    {"select, ahead of the keys", select_ahead, KVSIFT_OUT_OF_ORDER, "query->tokens is 66|65 tokens"},
    {"select, beyond max_tokens", select_far, KVSIFT_CAPACITY, "query->tokens is 201|max_tokens is 200"},
    {"select, far beyond", select_farthest, KVSIFT_CAPACITY, "query->tokens is 4294967295"},
    {"select, rows", select_rows, KVSIFT_INVALID_ARGUMENT, "query->rows is 2"},
    {"select, first head", select_head, KVSIFT_INVALID_ARGUMENT, "first_kv_head 7"},
    {"select, heads", select_heads, KVSIFT_INVALID_ARGUMENT, "kv_heads 3"},
};

/* Queries with one element that is not finite, or a view that cannot be read. */
static void check_queries(mistake_room *m, kvsift_status (*call)(mistake_room *m, const kvsift_query *q)) {
  static const float bad[] = {NAN, INFINITY, -INFINITY};
  float rows[4 * 16] = {0};
  kvsift_query q = m->query;
  q.view = (kvsift_view){rows, KVSIFT_F32, 0, 4 * 16 * 4, 16 * 4, 0, NULL, 0, 0, 0};
  for (uint32_t i = 0; i < 4 * 16 * 3; i += 5) {
    rows[i / 3] = bad[i % 3];
    cases_name("query element %u is %g", i / 3, (double)bad[i % 3]);
    mistakes_check(m, call(m, &q), KVSIFT_NOT_FINITE, "query->view");
    rows[i / 3] = 0;
  }
  for (uint32_t i = 0; i < VIEW_MISTAKES; ++i) {
    const char *word;
    kvsift_query wrong = m->query;
    cases_name("query, view mistake %u", i);
    const kvsift_status status = view_mistake(&wrong.view, i, &word);
    mistakes_check(m, call(m, &wrong), status, word);
    expect(strstr(kvsift_last_error(m->p), "query->view") != NULL, "%s", kvsift_last_error(m->p));
  }
}

static kvsift_status choose_with(mistake_room *m, const kvsift_query *q) { return choose(m, m->layer, q); }

static void test_select(void **state) {
  (void)state;
  const kvsift_method methods[] = {KVSIFT_METHOD_EMA, KVSIFT_METHOD_PAGE_STATS, KVSIFT_METHOD_QUEST};
  for (size_t i = 0; i < COUNT(methods); ++i) {
    const kvsift_policy_config c = config_of(methods[i]);
    mistake_room m;
    mistakes_begin(&m, &c, plain, KEYS_SEEN);
    check_all(&m, choosing, COUNT(choosing));
    check_queries(&m, choose_with);
    mistakes_end(&m);
  }
}

static bool at_once; /* through kvsift_decode_attend */

static kvsift_status attend_to(mistake_room *m, uint32_t layer, const kvsift_query *q, const kvsift_cache *cache,
                               const kvsift_selection *sel, float *out, kvsift_observation *o) {
  if (at_once) return kvsift_decode_attend(m->p, layer, q, cache, sel, out);
  return kvsift_attend(m->p, layer, q, cache, sel, out, o);
}
static kvsift_status attend(mistake_room *m, const kvsift_query *q, const kvsift_cache *cache,
                            const kvsift_selection *sel, kvsift_observation *o) {
  return attend_to(m, m->layer, q, cache, sel, m->out, o);
}

#define INSIDE(m) ((float *)((char *)(m)->s->arena + (m)->s->arena_bytes - 64))

CALL(attend_layer) {
  return attend_to(m, 5, &m->query, &m->cache, &m->selection, m->out, &m->observation);
}
CALL(attend_no_out) {
  return attend_to(m, m->layer, &m->query, &m->cache, &m->selection, NULL, &m->observation);
}
CALL(attend_out_inside) {
  return attend_to(m, m->layer, &m->query, &m->cache, &m->selection, INSIDE(m), NULL);
}
CALL(attend_no_query) { return attend(m, NULL, &m->cache, &m->selection, NULL); }
CALL(attend_no_cache) { return attend(m, &m->query, NULL, &m->selection, NULL); }
CALL(attend_no_selection) { return attend(m, &m->query, &m->cache, NULL, NULL); }

#define SPOIL_CALL(name, type, what, statement)                                                        \
  CALL(name) {                                                                                         \
    type what = m->what;                                                                               \
    kvsift_query *q_ = &m->query;                                                                      \
    kvsift_cache *cache_ = &m->cache;                                                                  \
    kvsift_selection *sel_ = &m->selection;                                                            \
    kvsift_observation *o_ = &m->observation;                                                          \
    statement;                                                                                         \
    return attend(m, PICK_Q(what), PICK_C(what), PICK_S(what), PICK_O(what));                          \
  }
/* The spoiled copy where the argument has its type, else the good one. */
#define PICK_Q(x) _Generic((x), kvsift_query: (void *)&(x), default: (void *)q_)
#define PICK_C(x) _Generic((x), kvsift_cache: (void *)&(x), default: (void *)cache_)
#define PICK_S(x) _Generic((x), kvsift_selection: (void *)&(x), default: (void *)sel_)
#define PICK_O(x) _Generic((x), kvsift_observation: (void *)&(x), default: (void *)o_)

SPOIL_CALL(attend_query_size, kvsift_query, query, query.struct_size = 0)
SPOIL_CALL(attend_query_tokens, kvsift_query, query, query.tokens = 64)
SPOIL_CALL(attend_query_heads, kvsift_query, query, query.kv_heads = 9)
SPOIL_CALL(attend_cache_size, kvsift_cache, cache, cache.struct_size = 8)
SPOIL_CALL(attend_cache_tokens, kvsift_cache, cache, cache.tokens = 64)
SPOIL_CALL(attend_page_zero, kvsift_cache, cache, cache.page_tokens = 0)
SPOIL_CALL(attend_page_odd, kvsift_cache, cache, cache.page_tokens = 24)
SPOIL_CALL(attend_table_stride, kvsift_cache, cache, cache.block_table_stride = 2)
SPOIL_CALL(attend_selection_size, kvsift_selection, selection, selection.struct_size = 100)
SPOIL_CALL(attend_selection_tokens, kvsift_selection, selection, selection.tokens = 66)
SPOIL_CALL(attend_selection_lists, kvsift_selection, selection, selection.lists = 1)
SPOIL_CALL(attend_selection_ranges, kvsift_selection, selection, selection.ranges = NULL)
SPOIL_CALL(attend_selection_counts, kvsift_selection, selection, selection.range_counts = NULL)
SPOIL_CALL(attend_range_stride, kvsift_selection, selection, selection.range_stride = 0)
SPOIL_CALL(attend_max_inside, kvsift_observation, observation, observation.block_max = INSIDE(m))
SPOIL_CALL(attend_mass_inside, kvsift_observation, observation, observation.block_mass = INSIDE(m))
SPOIL_CALL(attend_sums_inside, kvsift_observation, observation, observation.log_sum_exp = INSIDE(m))
CALL(attend_tail_inside) {
  return kvsift_attend_tail(m->p, m->layer, &m->query, &m->cache, &m->selection, INSIDE(m), m->log_sum_exp);
}
CALL(attend_tail_sums_inside) {
  return kvsift_attend_tail(m->p, m->layer, &m->query, &m->cache, &m->selection, m->out, INSIDE(m));
}
SPOIL_CALL(attend_observation_size, kvsift_observation, observation, observation.struct_size = 1)
SPOIL_CALL(attend_observation_max, kvsift_observation, observation, observation.block_max = NULL)
SPOIL_CALL(attend_observation_sum, kvsift_observation, observation, observation.log_sum_exp = NULL)
SPOIL_CALL(attend_observation_stride, kvsift_observation, observation, observation.block_stride = 8)

static const mistake attending[] = {
    {"attend, layer", attend_layer, KVSIFT_INVALID_ARGUMENT, "layer is 5"},
    {"attend, null out", attend_no_out, KVSIFT_INVALID_ARGUMENT, "out is null"},
    {"attend, out in the arena", attend_out_inside, KVSIFT_INVALID_ARGUMENT, "out"},
    {"attend, null query", attend_no_query, KVSIFT_INVALID_ARGUMENT, "query is null"},
    {"attend, null cache", attend_no_cache, KVSIFT_INVALID_ARGUMENT, "cache is null"},
    {"attend, null selection", attend_no_selection, KVSIFT_INVALID_ARGUMENT, "selection is null"},
    {"attend, query's size", attend_query_size, KVSIFT_INVALID_STRUCT_SIZE, "query->struct_size is 0"},
    {"attend, query's tokens", attend_query_tokens, KVSIFT_INVALID_ARGUMENT, "query->tokens is 64"},
    {"attend, heads", attend_query_heads, KVSIFT_INVALID_ARGUMENT, "kv_heads 9"},
    {"attend, cache's size", attend_cache_size, KVSIFT_INVALID_STRUCT_SIZE, "cache->struct_size is 8"},
    {"attend, short cache", attend_cache_tokens, KVSIFT_INVALID_ARGUMENT, "cache->tokens is 64"},
    {"attend, pages of 0", attend_page_zero, KVSIFT_INVALID_ARGUMENT, "cache->page_tokens is 0"},
    {"attend, pages of 24", attend_page_odd, KVSIFT_INVALID_ARGUMENT, "cache->page_tokens is 24"},
    {"attend, table stride", attend_table_stride, KVSIFT_INVALID_ARGUMENT, "cache->block_table_stride is 2"},
    {"attend, selection's size", attend_selection_size, KVSIFT_INVALID_STRUCT_SIZE, "selection->struct_size is 100"},
    {"attend, other length", attend_selection_tokens, KVSIFT_INVALID_ARGUMENT, "selection->tokens is 66"},
    {"attend, lists", attend_selection_lists, KVSIFT_INVALID_ARGUMENT, "selection->lists is 1"},
    {"attend, null ranges", attend_selection_ranges, KVSIFT_INVALID_ARGUMENT, "ranges"},
    {"attend, null counts", attend_selection_counts, KVSIFT_INVALID_ARGUMENT, "range_counts"},
    {"attend, range stride", attend_range_stride, KVSIFT_INVALID_ARGUMENT, "range_counts[0] is"},
};

static const mistake observing[] = {
    {"attend, observation's size", attend_observation_size, KVSIFT_INVALID_STRUCT_SIZE, "observation->struct_size is 1"},
    {"attend, block_max in the arena", attend_max_inside, KVSIFT_INVALID_ARGUMENT, "block_max lies"},
    {"attend, block_mass in the arena", attend_mass_inside, KVSIFT_INVALID_ARGUMENT, "block_mass lies"},
    {"attend, log_sum_exp in the arena", attend_sums_inside, KVSIFT_INVALID_ARGUMENT, "log_sum_exp lies"},
    {"attend_tail, out in the arena", attend_tail_inside, KVSIFT_INVALID_ARGUMENT, "out lies"},
    {"attend_tail, log_sum_exp in the arena", attend_tail_sums_inside, KVSIFT_INVALID_ARGUMENT, "log_sum_exp lies"},
    {"attend, null block_max", attend_observation_max, KVSIFT_INVALID_ARGUMENT, "block_max"},
    {"attend, null log_sum_exp", attend_observation_sum, KVSIFT_INVALID_ARGUMENT, "log_sum_exp"},
    {"attend, block stride", attend_observation_stride, KVSIFT_INVALID_ARGUMENT, "block_stride is 8|at least 9"},
};

static kvsift_status attend_with(mistake_room *m, const kvsift_query *q) {
  return attend(m, q, &m->cache, &m->selection, NULL);
}

static void check_caches(mistake_room *m) {
  for (uint32_t i = 0; i < 2 * VIEW_MISTAKES; ++i) {
    const char *word;
    kvsift_cache cache = m->cache;
    cases_name("attend, cache, view mistake %u", i);
    const kvsift_status status = view_mistake(i % 2 ? &cache.values : &cache.keys, i / 2, &word);
    mistakes_check(m, attend(m, &m->query, &cache, &m->selection, NULL), status, word);
    expect(strstr(kvsift_last_error(m->p), i % 2 ? "cache->values" : "cache->keys") != NULL, "%s", kvsift_last_error(m->p));
  }
  int32_t table[64];
  kvsift_cache cache = m->cache;
  for (int32_t page = -1; page > -3; --page) {
    memcpy(table, cache.block_table, 2 * cache.block_table_stride * sizeof *table);
    cache.block_table = table;
    table[0] = page;
    cases_name("attend, page %d", page);
    mistakes_check(m, attend(m, &m->query, &cache, &m->selection, NULL), KVSIFT_INVALID_ARGUMENT,
                   page == -1 ? "cache->block_table|is -1" : "cache->block_table|is -2");
    cache = m->cache;
  }
}

/* Ranges as a caller might write them. */
static void check_ranges(mistake_room *m) {
  static const kvsift_range wrong[][2] = {{{0, 0}, {0, 4}},   {{4, 2}, {5, 9}},           {{0, 8}, {7, 12}},
                                          {{8, 16}, {0, 4}},  {{0, 4}, {60, 66}},         {{0, 4}, {9, UINT32_MAX}},
                                          {{66, 70}, {71, 72}}, {{UINT32_MAX - 1, UINT32_MAX}, {0, 1}}};
  const uint32_t counts[4] = {2, 2, 2, 2};
  kvsift_range ranges[8];
  for (size_t i = 0; i < COUNT(wrong); ++i) {
    kvsift_selection sel = m->selection;
    for (uint32_t list = 0; list < 4; ++list) memcpy(ranges + 2 * list, wrong[i], sizeof wrong[i]);
    sel.ranges = ranges;
    sel.range_counts = counts;
    sel.range_stride = 2;
    cases_name("attend, ranges %zu", i);
    mistakes_check(m, attend(m, &m->query, &m->cache, &sel, NULL), KVSIFT_INVALID_ARGUMENT, "selection->ranges|[");
  }
}

static void check_attend(bool learns) {
  const kvsift_policy_config c = config_of(KVSIFT_METHOD_EMA);
  mistake_room m;
  at_once = learns;
  mistakes_begin(&m, &c, paged, ATTENDED);
  check_all(&m, attending, COUNT(attending));
  if (!learns) check_all(&m, observing, COUNT(observing));
  check_queries(&m, attend_with);
  check_caches(&m);
  check_ranges(&m);
  mistakes_end(&m);
}

static void test_attend(void **state) {
  (void)state;
  check_attend(false);
  check_attend(true);
}

/* An element of the newest row, key or value, goes bad. */
static void check_newest(mistake_room *m, float *rows, uint32_t i) {
  static const float bad[] = {NAN, INFINITY, -INFINITY};
  const size_t row = 2 * 16;
  kvsift_cache cache = m->cache;
  kvsift_view *view = i < row ? &cache.keys : &cache.values;
  memcpy(rows, view->data, m->tokens * row * sizeof(float));
  rows[(m->tokens - 1) * row + i % row] = bad[i % 3];
  view->data = rows;
  cases_name("attend, element %zu of the newest %s is %g", i % row, i < row ? "key" : "value", (double)bad[i % 3]);
  mistakes_check(m, attend(m, &m->query, &cache, &m->selection, NULL), KVSIFT_NOT_FINITE,
                 i < row ? "cache->keys" : "cache->values");
}

/* The newest row is looked at; an older one that went bad shows in the attention of those that kept it. In KV head 1 that is
 * after KV head 0 was attended to, which must not have learnt from it. */
static void check_not_finite(bool learns) {
  const kvsift_policy_config c = config_of(KVSIFT_METHOD_EMA);
  mistake_room m;
  at_once = learns;
  mistakes_begin(&m, &c, plain, ATTENDED);
  const size_t row = 2 * 16, bytes = m.tokens * row * sizeof(float);
  float *rows = malloc(bytes);
  for (uint32_t i = 0; i < 2 * row; ++i) check_newest(&m, rows, i);
  for (uint32_t i = 0; i < 4; ++i) {
    const uint32_t head = i / 2;
    kvsift_cache cache = m.cache;
    kvsift_view *view = i % 2 == 0 ? &cache.keys : &cache.values;
    memcpy(rows, view->data, bytes);
    rows[3 + 16 * head] = i % 2 == 0 ? NAN : INFINITY;
    view->data = rows;
    cases_name("attend, the first %s of KV head %u went bad", i % 2 == 0 ? "key" : "value", head);
    mistakes_check(&m, attend(&m, &m.query, &cache, &m.selection, NULL), KVSIFT_NOT_FINITE,
                   head == 0 ? "cache|query head 0" : "cache|query head 2");
  }
  free(rows);
  mistakes_end(&m);
}

static void test_attend_not_finite(void **state) {
  (void)state;
  check_not_finite(false);
  check_not_finite(true);
}

/* The rows of a sparse calibration need all keys; its output alone needs the selection's. */
static void test_sparse_calibration(void **state) {
  (void)state;
  kvsift_policy_config c = config_of(KVSIFT_METHOD_EMA);
  c.calibration_period = 1;
  c.calibration_dense = 0;
  mistake_room m;
  mistakes_begin(&m, &c, paged, ATTENDED);
  int32_t table[64];
  kvsift_cache cache = m.cache;
  memcpy(table, cache.block_table, 2 * cache.block_table_stride * sizeof *table);
  cache.block_table = table;
  expect(m.selection.calibration != 0 && m.selection.everything == 0, "no sparse calibration");
  /* The first page that no range of KV head 0 touches. */
  uint32_t page = 0;
  for (uint32_t i = 0; i < m.selection.range_counts[0]; ++i) {
    if (m.selection.ranges[i].begin / 16 <= page) page = (m.selection.ranges[i].end - 1) / 16 + 1;
  }
  expect(page * 16 < m.tokens, "every page is chosen");
  table[page] = -1;
  must(m.p, kvsift_attend(m.p, m.layer, &m.query, &cache, &m.selection, m.out, NULL));
  for (int learns = 0; learns < 2; ++learns) {
    at_once = learns != 0;
    cases_name("a sparse calibration's page is away");
    mistakes_check(&m, attend(&m, &m.query, &cache, &m.selection, &m.observation), KVSIFT_INVALID_ARGUMENT,
                   "cache->block_table|is -1");
  }
  mistakes_end(&m);
}

/* A step must have been chosen for, whether the method learns from it or not, and is learnt from only once. */
static void check_order(kvsift_method method, bool learns) {
  const kvsift_policy_config c = config_of(method);
  mistake_room m;
  at_once = true;
  mistakes_begin(&m, &c, plain, KEYS_SEEN);
  session *copy = session_fork(m.s);
  must(copy->policy, kvsift_select_blocks(copy->policy, m.layer, &m.query, &m.selection));
  cases_name("decode_attend before select, method %u", method);
  mistakes_check(&m, attend(&m, &m.query, &m.cache, &m.selection, NULL), KVSIFT_OUT_OF_ORDER,
                 "query->tokens is 65|has a selection for 64|kvsift_select_blocks comes first");
  cases_name("decode_attend twice, method %u", method);
  must(copy->policy, kvsift_decode_attend(copy->policy, m.layer, &m.query, &m.cache, &m.selection, m.out));
  const kvsift_status again = kvsift_decode_attend(copy->policy, m.layer, &m.query, &m.cache, &m.selection, m.out);
  expect(again == (learns ? KVSIFT_OUT_OF_ORDER : KVSIFT_OK), "status %d", again);
  expect(!learns || strstr(kvsift_last_error(copy->policy),
                           "query->tokens is 65, KV head 0 of layer 1 has rows up to 65") != NULL,
         "%s", kvsift_last_error(copy->policy));
  session_free(copy);
  mistakes_end(&m);
}

static void test_decode_attend_order(void **state) {
  (void)state;
  check_order(KVSIFT_METHOD_H2O, true);
  check_order(KVSIFT_METHOD_PAGE_STATS, false);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_keys),
      cmocka_unit_test(test_select),
      cmocka_unit_test(test_attend),
      cmocka_unit_test(test_attend_not_finite), cmocka_unit_test(test_sparse_calibration),
      cmocka_unit_test(test_decode_attend_order),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
