/* What goes wrong with slow tiers while they are read, and what devices say that cannot be: no wrong row is ever given out, and the
 * sentence names the place. Writes: store_write_test.c; files: store_file_test.c. */
#include "store_faults.h"

/* Every transfer comes in dribs and drabs. */
static void test_short_transfers(void **state) {
  (void)state;
  for (uint64_t most = 1; most < 300; most = most * 7 + 2) {
    fixture f;
    custom(&f);
    device.most = most;
    fixture_create(&f);
    fixture_append(&f, 0, 256);
    check_everything(&f, 256);
    fixture_reopen(&f);
    assert_int_equal(fixture_info(&f).tokens, 256);
    check_everything(&f, 256);
    assert_true(bytes_read(&f) > 0);
    end(&f);
  }
}

static void test_read_error(void **state) {
  (void)state;
  fixture f;
  fixture_lists s;
  kvsift_ticket ticket;
  custom(&f);
  fixture_create(&f);
  fixture_append(&f, 0, 256);
  assert_int_equal(kvsift_store_flush(f.store), KVSIFT_OK);
  lists_init(&s, &f, 256, 0);
  lists_add_all(&s, 40, 60);
  fake_break(&device, EIO, 0, 1);
  assert_int_equal(fixture_resolve(&f, 0, &s), KVSIFT_IO);
  expect_text(kvsift_store_last_error(f.store), "device: read at offset ");
  expect_text(kvsift_store_last_error(f.store), "input/output error (errno 5)");
  assert_int_equal(kvsift_store_prefetch(f.store, 0, &s.selection, &ticket), KVSIFT_OK);
  assert_int_equal(kvsift_store_wait(f.store, ticket), KVSIFT_IO);
  fake_break(&device, 0, 0, 0);
  assert_int_equal(fixture_resolve(&f, 0, &s), KVSIFT_OK);
  assert_true(fixture_stats(&f).io_errors >= 2);
  /* Failed once ahead of use, and well when resolve tries again. */
  lists_init(&s, &f, 256, 0);
  lists_add_all(&s, 100, 120);
  fake_break(&device, EIO, 0, 0);
  assert_int_equal(kvsift_store_prefetch(f.store, 0, &s.selection, &ticket), KVSIFT_OK);
  fake_sleep_until(fake_now() + 20000000);
  fake_break(&device, 0, 0, 0);
  assert_int_equal(fixture_resolve(&f, 0, &s), KVSIFT_OK);
  check_everything(&f, 256);
  end(&f);
}

/* Blocks that were asked for while reads failed, and never again, keep no slots. */
static void test_slots_of_failed_reads(void **state) {
  (void)state;
  fixture f;
  fixture_lists s;
  kvsift_ticket ticket;
  custom(&f);
  fixture_create(&f);
  fixture_append(&f, 0, 252);
  assert_int_equal(kvsift_store_flush(f.store), KVSIFT_OK);
  fake_break(&device, EIO, 0, 0);
  lists_init(&s, &f, 252, 0);
  lists_add_all(&s, 20, 140);
  assert_int_equal(kvsift_store_prefetch(f.store, 0, &s.selection, &ticket), KVSIFT_OK);
  await_ticket(&f, ticket);
  fake_break(&device, 0, 0, 0);
  lists_init(&s, &f, 252, 0);
  lists_add_all(&s, 140, 160);
  assert_int_equal(fixture_resolve(&f, 0, &s), KVSIFT_OK);
  fixture_append(&f, 252, 4);
  check_everything(&f, 256);
  end(&f);
}

/* What failed, and came when resolve tried again, is no failure of the next prefetch; what did not come is one, once. */
static void test_wait_after_failures(void **state) {
  (void)state;
  fixture f;
  fixture_lists s;
  kvsift_ticket first, second;
  custom(&f);
  fixture_create(&f);
  fixture_append(&f, 0, 256);
  assert_int_equal(kvsift_store_flush(f.store), KVSIFT_OK);
  for (int resolved = 0; resolved < 2; ++resolved) {
    fake_break(&device, EIO, 0, 0);
    lists_init(&s, &f, 256, 0);
    lists_add_all(&s, 20, 40);
    assert_int_equal(kvsift_store_prefetch(f.store, 0, &s.selection, &first), KVSIFT_OK);
    await_ticket(&f, first);
    fake_break(&device, 0, 0, 0);
    if (resolved) assert_int_equal(fixture_resolve(&f, 0, &s), KVSIFT_OK);
    lists_init(&s, &f, 256, 0);
    lists_add_all(&s, resolved ? 120 : 80, resolved ? 128 : 88);
    assert_int_equal(kvsift_store_prefetch(f.store, 0, &s.selection, &second), KVSIFT_OK);
    assert_int_equal(kvsift_store_wait(f.store, first), resolved ? KVSIFT_OK : KVSIFT_IO);
    assert_int_equal(kvsift_store_wait(f.store, second), KVSIFT_OK);
  }
  check_everything(&f, 256);
  end(&f);
}

/* A device that says it did more than it was asked to. */
static int64_t boast(void *context, uint64_t offset, const kvsift_store_span *spans, uint32_t count) {
  const int64_t done = fake_read(context, offset, spans, count);
  return offset > 30000 ? done + 1 : done;
}

static void test_lying_device(void **state) {
  (void)state;
  fixture f;
  fixture_lists s;
  custom(&f);
  calls.read = boast;
  fixture_create(&f);
  fixture_append(&f, 0, 256);
  lists_init(&s, &f, 256, 0);
  lists_add_all(&s, 100, 110);
  assert_int_equal(fixture_resolve(&f, 1, &s), KVSIFT_IO);
  end(&f);
}

/* Negative numbers that are no errno, with nothing in their low half for example. */
static int64_t odd;
static int64_t odd_transfer(void *context, uint64_t offset, const kvsift_store_span *spans, uint32_t count) {
  (void)context, (void)offset, (void)spans, (void)count;
  return odd;
}
static int32_t odd_sync(void *context) {
  (void)context;
  return INT32_MIN;
}

static void test_odd_errors(void **state) {
  (void)state;
  const int64_t results[] = {INT64_MIN, -(INT64_C(1) << 32), -4096};
  for (size_t i = 0; i < sizeof results / sizeof *results; ++i) {
    fixture f;
    custom(&f);
    odd = results[i];
    calls.write = odd_transfer;
    fixture_arena(&f);
    assert_int_equal(kvsift_store_create(&f.config, f.arena, f.arena_bytes, &f.store), KVSIFT_IO);
    expect_text(f.error.message, "write at offset 0: input/output error (errno 5)");
    free(f.arena);
    calls = fake_calls(&device);
    calls.sync = odd_sync;
    fixture_create(&f);
    assert_int_equal(kvsift_store_flush(f.store), KVSIFT_IO);
    expect_text(kvsift_store_last_error(f.store), "sync: input/output error (errno 5)");
    end(&f);
  }
}

/* What an older store left in the same file or memory is never taken for the new one's. */
static void test_old_content(void **state) {
  (void)state;
  fixture f;
  custom(&f);
  fixture_create(&f);
  fixture_append(&f, 0, 256);
  assert_int_equal(kvsift_store_close(f.store), KVSIFT_OK);
  f.generation = 1;
  assert_int_equal(kvsift_store_create(&f.config, f.arena, f.arena_bytes, &f.store), KVSIFT_OK);
  fixture_append(&f, 0, 32);
  fixture_reopen(&f);
  assert_int_equal(fixture_info(&f).tokens, 32);
  /* Back to 10 and on with other rows: the old 11 .. 32 must not come back, whatever of them is still on the device. */
  assert_int_equal(kvsift_store_truncate(f.store, 10), KVSIFT_OK);
  fixture_reopen(&f);
  assert_int_equal(fixture_info(&f).tokens, 8);
  check_everything(&f, 8);
  f.generation = 2;
  assert_int_equal(kvsift_store_truncate(f.store, 0), KVSIFT_OK);
  fixture_append(&f, 0, 16);
  fixture_reopen(&f);
  assert_int_equal(fixture_info(&f).tokens, 16);
  check_everything(&f, 16);
  end(&f);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_short_transfers),
      cmocka_unit_test(test_read_error),
      cmocka_unit_test(test_slots_of_failed_reads),
      cmocka_unit_test(test_wait_after_failures),
      cmocka_unit_test(test_lying_device),
      cmocka_unit_test(test_odd_errors),
      cmocka_unit_test(test_old_content),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
