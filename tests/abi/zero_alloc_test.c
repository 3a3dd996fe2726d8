/* No call after create allocates: every method and tail, thousands of steps, truncations, forks and snapshots.
 * With the argument "planted" a violation is made, and the program must fail. */
#include "guarded.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "alloc_guard.h"
#include "cases.h"
#include "session.h"
#include "shapes.h"

unsigned kvsift_planted(unsigned count);

static int planted;

static kvsift_policy_config config_of(kvsift_method method, uint32_t tail, uint32_t grouping) {
  kvsift_policy_config c = {.struct_size = sizeof c};
  must(NULL, kvsift_policy_config_init(&c, method));
  c.dense_tokens = KVSIFT_DENSE_OFF;
  c.layers = 3;
  c.dense_layers = 1;
  c.query_heads = 4;
  c.kv_heads = 2;
  c.head_dim = 16;
  c.max_tokens = 400;
  if (method != KVSIFT_METHOD_FULL) c.budget_tokens = 96;
  c.sink_tokens = 8;
  c.local_tokens = method == KVSIFT_METHOD_STREAMING ? 0 : 16;
  c.tail = tail;
  c.grouping = grouping;
  c.rollback_tokens = 8;
  c.history_rows = 8;
  return c;
}

/* Everything a policy can be asked for, between arm and disarm; what the test itself needs is allocated before. */
static void work(session *s, session *copy, void *snapshot, uint64_t bytes) {
  uint64_t written;
  kvsift_policy_info info = {.struct_size = sizeof info};
  kvsift_stats stats = {.struct_size = sizeof stats};
  session_prompt(s, 120);
  for (uint32_t round = 0; round < 30; ++round) {
    s->at_once = round % 2 == 1;
    session_steps(s, 10);
    session_truncate(s, s->tokens - 2);
    must(s->policy, kvsift_fork(s->policy, copy->arena, copy->arena_bytes, &copy->policy));
    copy->tokens = s->tokens;
    session_steps(copy, 2);
    must(s->policy, kvsift_snapshot_save(s->policy, snapshot, bytes, &written));
    must(copy->policy, kvsift_snapshot_load(copy->policy, snapshot, written));
    copy->tokens = s->tokens;
    session_steps(copy, 1);
    must(s->policy, kvsift_policy_get_info(s->policy, &info));
    must(s->policy, kvsift_get_stats(s->policy, &stats));
    expect(kvsift_truncate(s->policy, UINT32_MAX) == KVSIFT_INVALID_ARGUMENT, "a wrong call is answered");
    if (s->tokens + 20 > s->config.max_tokens) break;
  }
  must(s->policy, kvsift_policy_reset(s->policy));
  if (planted) kvsift_planted(3);
}

static void run(kvsift_method method, uint32_t tail, uint32_t grouping) {
  const kvsift_policy_config c = config_of(method, tail, grouping);
  const toy_form form = {KVSIFT_F16, 16, false, false, 0};
  cases_name("%s, tail %u, grouping %u", kvsift_method_name(method), tail, grouping);
  toy *t = toy_new(1, &c, form);
  session *s = session_new(&c, t);
  if (s == NULL) {
    print_message("skipped: %s with tail %u is not in this build\n", kvsift_method_name(method), tail);
    toy_free(t);
    return;
  }
  session *copy = session_fork(s);
  const uint64_t bytes = 2 * s->arena_bytes + 4096;
  void *snapshot = guarded_new(bytes);
  alloc_guard_arm();
  work(s, copy, snapshot, bytes);
  const size_t calls = alloc_guard_disarm();
  expect(calls == 0, "%zu calls of the allocator, the first was %s", calls, alloc_guard_first());
  guarded_free(snapshot, bytes);
  session_free(copy);
  session_free(s);
  toy_free(t);
}

static void test_no_allocation(void **state) {
  (void)state;
  for (kvsift_method m = 0; m < KVSIFT_METHOD_COUNT; ++m) {
    for (uint32_t tail = 0; tail <= KVSIFT_TAIL_BALANCE; ++tail) {
      if (m == KVSIFT_METHOD_FULL && tail > 0) continue;
      if (m == KVSIFT_METHOD_BALANCE && tail != KVSIFT_TAIL_BALANCE) continue;
      run(m, tail, m % 3);
    }
  }
}

int main(int argc, char **argv) {
  planted = argc > 1 && strcmp(argv[1], "planted") == 0;
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_no_allocation)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
