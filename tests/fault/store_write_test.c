/* Writes that fail, of rows and of entries: completed blocks are there, and a later flush writes what waits. */
#include "store_faults.h"

/* The disk is full for a while: appending stops, what is there can be read, and a later flush writes it all. */
static void test_full_disk(void **state) {
  (void)state;
  fixture f;
  custom(&f);
  fixture_create(&f);
  fixture_append(&f, 0, 20);
  assert_int_equal(kvsift_store_flush(f.store), KVSIFT_OK);
  assert_int_equal(fixture_info(&f).durable_tokens, 20);
  fake_break(&device, 0, ENOSPC, 3);
  uint32_t tokens = 20;
  kvsift_status status = KVSIFT_OK;
  while (tokens < 256 && status == KVSIFT_OK) {
    for (uint32_t l = 0; l < f.config.layers && status == KVSIFT_OK; ++l) {
      if (kvsift_store_layer_tokens(f.store, l) == tokens) status = fixture_append_layer(&f, l, tokens, 1);
    }
    if (status == KVSIFT_OK) ++tokens;
    fake_sleep_until(fake_now() + 1000000);
  }
  assert_int_equal(status, KVSIFT_IO);
  if (tokens < 24 || tokens > 48) fail_msg("stopped at %u tokens", tokens);
  expect_text(kvsift_store_last_error(f.store), "write at offset ");
  expect_text(kvsift_store_last_error(f.store), "no space left (errno 28)");
  assert_int_equal(kvsift_store_flush(f.store), KVSIFT_IO);
  assert_true(fixture_info(&f).durable_tokens <= 24);
  check_everything(&f, tokens);
  fake_break(&device, 0, 0, 0);
  assert_int_equal(kvsift_store_flush(f.store), KVSIFT_OK);
  assert_int_equal(fixture_info(&f).durable_tokens, tokens / 4 * 4);
  for (uint32_t l = 0; l < f.config.layers; ++l) {
    if (kvsift_store_layer_tokens(f.store, l) == tokens) fixture_append_layer(&f, l, tokens, 1);
  }
  fixture_append(&f, tokens + 1, 255 - tokens);
  check_everything(&f, 256);
  fixture_reopen(&f);
  assert_int_equal(fixture_info(&f).tokens, 256);
  check_everything(&f, 256);
  end(&f);
}

/* One write fails while flush waits for it, or close: it is tried once more. */
static void test_failure_in_flush(void **state) {
  (void)state;
  for (int closing = 0; closing < 2; ++closing) {
    fixture f;
    custom(&f);
    fixture_create(&f);
    device.bandwidth = 1u << 30;
    device.latency_ns = 50000000;
    device.write_errno = EIO;
    device.failures = 1;
    fixture_append(&f, 0, 4);
    if (!closing) assert_int_equal(kvsift_store_flush(f.store), KVSIFT_OK);
    fixture_reopen(&f);
    assert_int_equal(fixture_info(&f).tokens, 4);
    check_everything(&f, 4);
    end(&f);
  }
}

/* Two writes fail: the first at once, the second as flush begins, after so many turns. */
static _Atomic int failed_writes, flush_begins;
static int turns;

static int64_t fail_twice(void *context, uint64_t offset, const kvsift_store_span *spans, uint32_t count) {
  const int before = failed_writes++;
  if (before > 1) return fake_write(context, offset, spans, count);
  while (before == 1 && !flush_begins) continue;
  for (volatile int i = 0; before == 1 && i < turns; ++i) continue;
  return -EIO;
}

/* Whenever that is, flush writes both. Many slots, so that looking at them takes a while. */
static void test_failure_as_flush_begins(void **state) {
  (void)state;
  for (int run = 0; run < 60; ++run) {
    fixture f;
    fixture_config(&f, KVSIFT_STORE_CUSTOM);
    f.config.layers = f.config.head_dim = 1;
    f.config.max_tokens = 1u << 17;
    f.config.fast_blocks = 1u << 15;
    custom_device(&f);
    calls.write = fail_twice;
    failed_writes = 2;
    fixture_create(&f);
    failed_writes = flush_begins = 0;
    turns = run % 20 * 2000;
    fixture_append(&f, 0, 4);
    await_errors(&f, 1);
    flush_begins = 1;
    assert_int_equal(kvsift_store_flush(f.store), KVSIFT_OK);
    assert_int_equal(fixture_info(&f).durable_tokens, 4);
    fixture_append(&f, 4, 4);
    end(&f);
  }
}

/* Failed writes hold all slots but one: truncating into an old block, of two heads, finds no room, and changes nothing. */
static void test_truncate_without_room(void **state) {
  (void)state;
  fixture f;
  custom(&f);
  f.config.layers = 1;
  f.config.sink_tokens = f.config.local_tokens = 0;
  f.config.fast_blocks = 2;
  fixture_create(&f);
  fixture_append(&f, 0, 40);
  assert_int_equal(kvsift_store_flush(f.store), KVSIFT_OK);
  device.bandwidth = 1u << 30;
  device.latency_ns = 50000000; /* both blocks are appended before the first write has failed */
  fake_break(&device, 0, ENOSPC, 1);
  fixture_append(&f, 40, 8);
  await_errors(&f, 3);
  fake_break(&device, 0, 0, 0);
  assert_int_equal(kvsift_store_truncate(f.store, 14), KVSIFT_IO);
  expect_text(kvsift_store_last_error(f.store), "no space left (errno 28)");
  assert_int_equal(fixture_info(&f).tokens, 48);
  assert_int_equal(kvsift_store_flush(f.store), KVSIFT_OK);
  check_everything(&f, 48);
  assert_int_equal(kvsift_store_truncate(f.store, 14), KVSIFT_OK);
  check_everything(&f, 14);
  fixture_append(&f, 14, 34);
  check_everything(&f, 48);
  end(&f);
}

/* How writes of entries fail: their first half is done, or all of it. */
enum { WELL, TORN, DONE };
static _Atomic int entries;

static int64_t write_entry(void *context, uint64_t offset, const kvsift_store_span *spans, uint32_t count) {
  const kvsift_store_span half = {spans[0].data, spans[0].bytes / 2};
  const int how = offset >= 128 && offset < 128 + 64 * 64 ? entries : WELL;
  const int64_t done = fake_write(context, offset, how == TORN ? &half : spans, count);
  return how == WELL ? done : -EIO;
}

static void custom_entries(fixture *f) {
  custom(f);
  calls.write = write_entry;
  entries = WELL;
}

/* Truncating damages an entry, and fails: all is there still, and durable when a flush says so. */
static void test_torn_truncate(void **state) {
  (void)state;
  for (int reopened = 0; reopened < 2; ++reopened) {
    fixture f;
    custom_entries(&f);
    fixture_create(&f);
    fixture_append(&f, 0, 64);
    assert_int_equal(kvsift_store_flush(f.store), KVSIFT_OK);
    if (reopened) fixture_reopen(&f);
    entries = TORN;
    assert_int_equal(kvsift_store_truncate(f.store, 32), KVSIFT_IO);
    await_errors(&f, 1);
    assert_int_equal(fixture_info(&f).tokens, 64);
    assert_int_equal(fixture_info(&f).durable_tokens, 32);
    entries = WELL;
    assert_int_equal(kvsift_store_flush(f.store), KVSIFT_OK);
    assert_int_equal(fixture_info(&f).durable_tokens, 64);
    fixture_reopen(&f);
    assert_int_equal(fixture_info(&f).tokens, 64);
    check_everything(&f, 64);
    end(&f);
  }
}

/* An entry is there though its write, or that of zeros over it, failed: what truncate forgets does not come back. */
static void test_truncate_after_failures(void **state) {
  (void)state;
  for (int erasing = 0; erasing < 2; ++erasing) {
    fixture f;
    custom_entries(&f);
    fixture_create(&f);
    fixture_append(&f, 0, 32);
    assert_int_equal(kvsift_store_flush(f.store), KVSIFT_OK);
    entries = erasing ? WELL : DONE;
    fixture_append(&f, 32, 4);
    assert_int_equal(kvsift_store_flush(f.store), erasing ? KVSIFT_OK : KVSIFT_IO);
    entries = WELL;
    if (erasing) {
      fake_break(&device, 0, EIO, 0);
      assert_int_equal(kvsift_store_truncate(f.store, 32), KVSIFT_IO);
      await_errors(&f, 1);
      fake_break(&device, 0, 0, 0);
    }
    assert_int_equal(kvsift_store_truncate(f.store, 32), KVSIFT_OK);
    fixture_reopen(&f);
    assert_int_equal(fixture_info(&f).tokens, 32);
    end(&f);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_full_disk),
      cmocka_unit_test(test_failure_in_flush),
      cmocka_unit_test(test_failure_as_flush_begins),
      cmocka_unit_test(test_truncate_without_room),
      cmocka_unit_test(test_torn_truncate),
      cmocka_unit_test(test_truncate_after_failures),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
