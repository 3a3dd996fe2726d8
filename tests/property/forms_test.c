/* The same question in another form gets the same bits: instruction sets, head ranges, cache layouts and types, prompts
 * in pieces. */
#define _POSIX_C_SOURCE 200809L
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <kvsift/balance.h>

#include "cases.h"
#include "subject.h"

/* A whole run; `one_head`: a KV head at a time. */
static session *run(const subject *x, const toy *t, bool one_head) {
  session *s = session_new(&x->config, t);
  s->one_head_a_time = one_head;
  session_prompt(s, x->prompt);
  session_steps(s, x->steps);
  return s;
}

static void heads_property(subject *x) {
  session *all = run(x, x->toy, false), *one = run(x, x->toy, true);
  expect_same(all, one, "one head at a time");
  session_free(all);
  session_free(one);
}

static void test_head_ranges(void **state) {
  (void)state;
  each_subject(25, heads_property);
}

static toy_form random_form(test_random *r) {
  static const uint32_t pages[] = {0, 1, 2, 16, 64};
  toy_form form = {random_below(r, 4), pages[random_below(r, 5)], random_below(r, 2) == 0, random_below(r, 2) == 0, 0};
  if (random_below(r, 2) == 0) form.gap = 1 + random_below(r, 20);
  return form;
}

static void forms_property(subject *x) {
  const toy_form form = random_form(&x->random);
  toy *other = toy_new(x->toy->seed, &x->config, form);
  session *expected = run(x, x->toy, false), *s = run(x, other, random_below(&x->random, 2) == 0);
  expect(expected->digest == s->digest, "type %u, pages of %u%s, %s first, gap %u: another answer", form.type,
         form.page_tokens, form.table_per_head ? " by head" : "", form.heads_first ? "heads" : "tokens", form.gap);
  session_free(expected);
  session_free(s);
  toy_free(other);
}

static void test_cache_forms(void **state) {
  (void)state;
  each_subject(60, forms_property);
}

/* Levels of this build that this machine has. */
static uint32_t find_levels(char names[8][16]) {
  kvsift_build_info info = {.struct_size = sizeof info};
  uint32_t count = 0;
  char all[64];
  must(NULL, kvsift_get_build_info(&info));
  strncpy(all, info.levels, sizeof all - 1);
  all[sizeof all - 1] = '\0';
  for (char *save = NULL, *name = strtok_r(all, " ", &save); name != NULL; name = strtok_r(NULL, " ", &save)) {
    setenv("KVSIFT_CPU", name, 1);
    must(NULL, kvsift_get_build_info(&info));
    if (strcmp(info.level, name) != 0) {
      print_message("skipped: this machine has no %s\n", name);
      continue;
    }
    strncpy(names[count], name, 15);
    names[count++][15] = '\0';
  }
  unsetenv("KVSIFT_CPU");
  return count;
}

static void levels_property(subject *x) {
  static char names[8][16];
  static uint32_t count;
  if (count == 0) count = find_levels(names);
  expect(count > 0, "no instruction set can be used");
  uint64_t first = 0;
  for (uint32_t i = 0; i < count; ++i) {
    setenv("KVSIFT_CPU", names[i], 1);
    session *s = run(x, x->toy, false);
    if (i == 0) first = s->digest;
    expect(s->digest == first, "%s and %s give different answers", names[0], names[i]);
    session_free(s);
  }
  unsetenv("KVSIFT_CPU");
}

static void test_levels(void **state) {
  (void)state;
  each_subject(20, levels_property);
}

/* A prompt in two pieces. EMA averages over the last rows of each piece and is not asked. */
static void chunks_property(subject *x) {
  const kvsift_method m = x->config.method;
  const bool votes = m == KVSIFT_METHOD_SNAPKV || m == KVSIFT_METHOD_PYRAMIDKV;
  const bool graded = x->config.tail == KVSIFT_TAIL_BALANCE && x->config.balance_form == KVSIFT_BALANCE_GRADED;
  const uint32_t last = votes || graded ? x->config.window : 1;
  if (m == KVSIFT_METHOD_EMA || x->prompt <= last) return;
  session *whole = session_new(&x->config, x->toy), *pieces = session_new(&x->config, x->toy);
  session_prompt(whole, x->prompt);
  const uint32_t first = random_below(&x->random, x->prompt - last + 1);
  session_prompt(pieces, first);
  session_prompt(pieces, x->prompt - first);
  whole->digest = pieces->digest = 0;
  session_steps(whole, x->steps);
  session_steps(pieces, x->steps);
  expect_same(whole, pieces, "a prompt in pieces");
  session_free(whole);
  session_free(pieces);
}

static void test_chunked_prompt(void **state) {
  (void)state;
  each_subject(25, chunks_property);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_head_ranges),
      cmocka_unit_test(test_cache_forms),
      cmocka_unit_test(test_levels),
      cmocka_unit_test(test_chunked_prompt),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
