/* After create no call of the store, and none of its threads, asks for memory. */
#include "store_fixture.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__GLIBC__)
int main(void) {
  printf("skipped: sanitizers and other C libraries bring their own allocator\n");
  return 77;
}
#else

static int watching;
static unsigned seen;

void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void __libc_free(void *);

static void note(void) {
  if (__atomic_load_n(&watching, __ATOMIC_SEQ_CST)) __atomic_add_fetch(&seen, 1, __ATOMIC_SEQ_CST);
}

void *malloc(size_t bytes) {
  note();
  return __libc_malloc(bytes);
}
void *calloc(size_t count, size_t bytes) {
  note();
  return __libc_calloc(count, bytes);
}
void *realloc(void *p, size_t bytes) {
  note();
  return __libc_realloc(p, bytes);
}
void free(void *p) {
  if (p != NULL) note();
  __libc_free(p);
}

static void watch(int on) { __atomic_store_n(&watching, on, __ATOMIC_SEQ_CST); }

static void run(uint32_t backend, uint32_t io) {
  static uint16_t rows[256 * 2 * 16], copy[2][256 * 16];
  fixture f;
  fixture_lists s;
  kvsift_ticket ticket;
  kvsift_cache cache = {.struct_size = sizeof cache};
  const kvsift_view view = {.data = rows, .type = KVSIFT_F16, .token_stride = 64, .head_stride = 32};
  fixture_config(&f, backend);
  f.config.io = io;
  fixture_create(&f);
  watch(1);
  for (uint32_t t = 0; t < 256; t += 32) {
    for (uint32_t l = 0; l < 2; ++l) {
      assert_int_equal(kvsift_store_append(f.store, l, t, 32, &view, &view), KVSIFT_OK);
      lists_init(&s, &f, t + 32, 0);
      lists_add_all(&s, t / 2, t / 2 + 20);
      assert_int_equal(kvsift_store_prefetch(f.store, l, &s.selection, &ticket), KVSIFT_OK);
      assert_int_equal(kvsift_store_wait(f.store, ticket), KVSIFT_OK);
      assert_int_equal(kvsift_store_resolve(f.store, l, &s.selection, &cache), KVSIFT_OK);
    }
  }
  assert_int_equal(kvsift_store_read(f.store, 0, 1, 0, 256, copy[0], copy[1], NULL, NULL), KVSIFT_OK);
  assert_int_equal(kvsift_store_truncate(f.store, 99), KVSIFT_OK);
  assert_int_equal(kvsift_store_flush(f.store), KVSIFT_OK);
  watch(0);
  if (seen != 0) fail_msg("%u calls of the allocator", seen);
  fixture_end(&f);
}

static void test_no_allocation(void **state) {
  (void)state;
  run(KVSIFT_STORE_HOST, 0);
  run(KVSIFT_STORE_FILE, KVSIFT_STORE_IO_THREADS);
  run(KVSIFT_STORE_FILE, KVSIFT_STORE_IO_AUTO);
}

/* The watch works: one of these would be noticed. */
static void test_watch(void **state) {
  (void)state;
  watch(1);
  void *volatile p = malloc(16);
  free(p);
  watch(0);
  assert_int_equal(seen, 2);
  seen = 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_watch), cmocka_unit_test(test_no_allocation)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
#endif
