/* A process that appends, truncates and resolves is killed at a random moment; the store is opened again, checked row by
 * row, and carried on by the next process. KVSIFT_KILL_RUNS sets the number of runs (20). */
#include "store_fixture.h"
#include "random.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

enum { TOKENS = 256 };

/* What the processes tell each other. Rows of a token change with its version. */
typedef struct shared {
  volatile uint32_t durable;
  volatile uint32_t ready;
  volatile uint32_t version[TOKENS];
} shared;

static void append_versions(fixture *f, const shared *s, uint32_t first, uint32_t tokens) {
  for (uint32_t t = first; t < first + tokens; ++t) {
    f->generation = s->version[t];
    fixture_append(f, t, 1);
  }
}

static void work(fixture *f, shared *s, uint64_t seed, int fresh) {
  test_random random = {seed};
  const kvsift_status status = fresh ? kvsift_store_create(&f->config, f->arena, f->arena_bytes, &f->store)
                                     : kvsift_store_open(&f->config, f->arena, f->arena_bytes, &f->store);
  if (status != KVSIFT_OK) _exit(3);
  uint32_t tokens = fixture_info(f).tokens;
  s->ready = 1;
  while (1) {
    if (tokens > TOKENS - 10 || random_below(&random, 12) == 0) {
      tokens -= random_below(&random, tokens + 1) / (tokens > TOKENS - 10 ? 1 : 8);
      if (s->durable > tokens) s->durable = tokens / 4 * 4;
      if (kvsift_store_truncate(f->store, tokens) != KVSIFT_OK) _exit(4);
      for (uint32_t t = tokens; t < TOKENS; ++t) ++s->version[t];
    } else {
      const uint32_t more = 1 + random_below(&random, 8);
      append_versions(f, s, tokens, more);
      tokens += more;
    }
    s->durable = fixture_info(f).durable_tokens;
  }
}

static void check_versions(fixture *f, const shared *s, uint32_t tokens) {
  uint16_t *rows = (uint16_t *)malloc((size_t)4 * 16 * TOKENS);
  for (uint32_t l = 0; l < f->config.layers; ++l) {
    for (uint32_t h = 0; h < f->config.kv_heads; ++h) {
      const kvsift_status status = kvsift_store_read(f->store, l, h, 0, tokens, rows, rows + 16 * tokens, NULL, NULL);
      if (status != KVSIFT_OK) fail_msg("%s", kvsift_store_last_error(f->store));
      for (uint32_t i = 0; i < 2 * 16 * tokens; ++i) {
        const uint32_t t = i / 16 % tokens;
        if (rows[i] == fixture_element(s->version[t], l, h, t, i / (16 * tokens), i % 16)) continue;
        fail_msg("layer %u, head %u, token %u of %u is wrong", l, h, t, tokens);
      }
    }
  }
  free(rows);
}

static void kill_once(fixture *f, shared *s, test_random *random, int fresh, uint32_t *most) {
  s->ready = 0;
  const pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) work(f, s, random->state, fresh);
  while (s->ready == 0) {
    assert_int_equal(waitpid(child, NULL, WNOHANG), 0);
    nanosleep(&(struct timespec){0, 100000}, NULL);
  }
  nanosleep(&(struct timespec){0, (long)random_below(random, 30000000)}, NULL);
  assert_int_equal(kill(child, SIGKILL), 0);
  int status = 0;
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_true(WIFSIGNALED(status));
  f->store = NULL;
  fixture_reopen(f);
  const uint32_t tokens = fixture_info(f).tokens;
  if (tokens < s->durable) fail_msg("%u tokens found, %u had been completed", tokens, s->durable);
  check_versions(f, s, tokens);
  assert_int_equal(kvsift_store_close(f->store), KVSIFT_OK);
  f->store = NULL;
  if (tokens > *most) *most = tokens;
}

static void run(uint32_t io, uint32_t runs) {
  fixture f;
  test_random random = {io + 77};
  uint32_t most = 0;
  shared *s = (shared *)mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  assert_true(s != MAP_FAILED);
  fixture_config(&f, KVSIFT_STORE_FILE);
  f.config.io = io;
  fixture_arena(&f);
  for (uint32_t i = 0; i < runs; ++i) kill_once(&f, s, &random, i == 0, &most);
  assert_true(most >= 32);
  print_message("%u runs, up to %u tokens found\n", runs, most);
  fixture_end(&f);
  munmap(s, sizeof *s);
}

static uint32_t runs(void) {
  const char *text = getenv("KVSIFT_KILL_RUNS");
  return text != NULL && atoi(text) > 0 ? (uint32_t)atoi(text) : 20;
}

static void test_threads(void **state) {
  (void)state;
  run(KVSIFT_STORE_IO_THREADS, (runs() + 1) / 2);
}

static void test_ring(void **state) {
  (void)state;
  run(KVSIFT_STORE_IO_AUTO, (runs() + 1) / 2);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_threads), cmocka_unit_test(test_ring)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
