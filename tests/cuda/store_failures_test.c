/* What a store in front of pinned memory does when the driver fails, when slow memory does, and with rows that are not finite. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device_store.h"

/* A step that calls everything; the first failure. */
static kvsift_status whole_step(fixture *f) {
  kvsift_cache cache = {.struct_size = sizeof cache};
  kvsift_ticket ticket = 0;
  uint32_t done;
  kvsift_status s = append(f, 0, 32);
  kvsift_selection first = block_of_each(f, 1);
  if (s == KVSIFT_OK) s = kvsift_cuda_store_prefetch(f->store, 0, &first, gpu_stream(), &ticket);
  if (s == KVSIFT_OK) s = kvsift_cuda_store_poll(f->store, ticket, &done);
  if (s == KVSIFT_OK) s = kvsift_cuda_store_wait(f->store, ticket, gpu_stream());
  for (uint32_t i = 0; i < 2; ++i) f->ranges[(size_t)i * f->stride] = (kvsift_range){32, 80}; /* a run */
  if (s == KVSIFT_OK) s = kvsift_cuda_store_resolve(f->store, 0, &first, &cache, gpu_stream());
  if (s == KVSIFT_OK) s = kvsift_cuda_store_truncate(f->store, f->tokens[0] - 20, gpu_stream());
  if (s == KVSIFT_OK) f->tokens[0] -= 20;
  if (s == KVSIFT_OK) s = kvsift_cuda_store_flush(f->store);
  return s;
}

static void a_failing_driver_loses_the_store(void **state) {
  (void)state;
  static const char *const functions[] = {"cuLaunchKernelEx",    "cuMemcpyDtoHAsync", "cuMemcpyHtoDAsync",
                                          "cuEventRecord",     "cuStreamWaitEvent", "cuEventQuery",
                                          "cuStreamSynchronize"};
  if (!gpu_is_mock()) {
    print_message("skipped: a real driver does not fail to order\n");
    skip();
  }
  for (uint32_t i = 0; i < sizeof functions / sizeof *functions; ++i) {
    for (uint32_t nth = 1; nth < 40; ++nth) {
      test_random r = {3};
      kvsift_cuda_store_config config = small_config();
      config.run_blocks = 2, config.checksums = 1, config.late_blocks = 4;
      fixture *f = fixture_new(config, &r);
      create(f);
      fine(f, append(f, 0, 300));
      gpu_wait();
      gpu_fail(functions[i], nth, CUDA_ERROR_LAUNCH_FAILED);
      const kvsift_status status = whole_step(f);
      gpu_fail(functions[i], 0, 0);
      if (status != KVSIFT_OK) {
        const char *sentence = kvsift_cuda_store_last_error(f->store);
        expect(status == KVSIFT_DEVICE && strstr(sentence, functions[i]) != NULL, "%s, call %u: %s", functions[i], nth,
               sentence);
        expect(whole_step(f) == KVSIFT_DEVICE, "%s: the store went on", functions[i]);
      }
      fixture_free(f);
      if (status == KVSIFT_OK) {
        expect(nth > 1, "%s was never called", functions[i]);
        break;
      }
    }
  }
}

static void a_failing_create_leaves_nothing(void **state) {
  (void)state;
  static const char *const functions[] = {
      "cuStreamCreate", "cuEventCreate",     "cuMemsetD8Async",  "cuMemHostGetDevicePointer",
      "cuEventRecord",  "cuStreamWaitEvent", "cuLibraryLoadData"};
  if (!gpu_is_mock()) {
    print_message("skipped: a real driver does not fail to order\n");
    skip();
  }
  test_random r = {4};
  fixture *f = fixture_new(small_config(), &r);
  for (uint32_t i = 0; i < sizeof functions / sizeof *functions; ++i) {
    gpu_fail(functions[i], 1, CUDA_ERROR_OUT_OF_MEMORY);
    const uint64_t streams = gpu_calls("cuStreamCreate") - gpu_calls("cuStreamDestroy");
    const kvsift_status status = kvsift_cuda_store_create(&f->config, &f->arenas, gpu_stream(), &f->store);
    expect(status == KVSIFT_DEVICE && f->store == NULL, "%s: create answered %d", functions[i], (int)status);
    expect(strstr(f->error.message, functions[i]) != NULL, "%s: %s", functions[i], f->error.message);
    const uint64_t left = gpu_calls("cuStreamCreate") - gpu_calls("cuStreamDestroy") - streams;
    expect(left == (i == 0), "%s: %d streams are left", functions[i], (int)left); /* the first is only asked for */
  }
  create(f);
  fixture_free(f);
}

/* 24 whole blocks of each head in slow memory, all but the 11 newest and block 0 only there; one byte of block `block` of head
 * 1 is changed. */
static fixture *with_a_changed_byte(kvsift_cuda_store_config config, uint32_t block, uint32_t byte) {
  test_random r = {8};
  config.checksums = 1;
  fixture *f = fixture_new(config, &r);
  create(f);
  fine(f, append(f, 0, 390));
  fine(f, kvsift_cuda_store_flush(f->store));
  record_of(f, 0, 1, block)[byte] ^= 0x10;
  return f;
}

/* The device has found it: the block is not in the table, its slot holds no number, and every call says so. */
static void expect_corrupt(fixture *f, const kvsift_cache *cache, uint32_t block) {
  kvsift_selection s = block_of_each(f, 1);
  kvsift_store_stats stats = {.struct_size = sizeof stats};
  kvsift_cache other = {.struct_size = sizeof other};
  gpu_wait();
  if (cache != NULL) {
    gpu_read(f->table, cache->block_table, 2 * sizeof *f->table * f->blocks);
    assert_int_equal(f->table[cache->block_table_stride + block], -1);
  }
  assert_int_equal(kvsift_cuda_store_flush(f->store), KVSIFT_CORRUPT);
  char sentence[64];
  snprintf(sentence, sizeof sentence, "layer 0, KV head 1, block %u:", block);
  expect(strstr(kvsift_cuda_store_last_error(f->store), sentence) != NULL, "%s", kvsift_cuda_store_last_error(f->store));
  assert_int_equal(kvsift_cuda_store_resolve(f->store, 0, &s, &other, gpu_stream()), KVSIFT_CORRUPT);
  assert_int_equal(append(f, 0, 1), KVSIFT_CORRUPT);
  fine(f, kvsift_cuda_store_get_stats(f->store, &stats));
  assert_int_equal(stats.corrupt_records, 1);
  fixture_free(f);
}

/* The bytes of all slots are those of some row or all ones: the changed byte is nowhere. */
static void expect_refused(fixture *f, const kvsift_cache *cache) {
  const uint64_t slots = 2ull * f->config.fast_blocks;
  uint32_t refused = 0;
  check_resident(f, 0, cache);
  for (uint64_t i = 0; i < slots; ++i) {
    uint64_t ones = 0;
    for (uint64_t b = 0; b < f->record_bytes; ++b) ones += f->slots[i * f->record_bytes + b] == 0xff;
    refused += ones == f->record_bytes;
  }
  expect(refused == 1, "%u slots were refused; late_blocks %u, run_blocks %u", refused, f->config.late_blocks, f->config.run_blocks);
}

static void a_changed_record_is_refused(void **state) {
  (void)state;
  kvsift_cache cache = {.struct_size = sizeof cache};
  const uint32_t last = 2 * 2 * 32 * 16 - 1;
  for (uint32_t byte = 0; byte <= last; byte += last) { /* the first of the keys, the last of the values */
    fixture *f = with_a_changed_byte(small_config(), 3, byte);
    kvsift_selection s = block_of_each(f, 3);
    fine(f, kvsift_cuda_store_resolve(f->store, 0, &s, &cache, gpu_stream()));
    expect_refused(f, &cache);
    expect_corrupt(f, &cache, 3);
  }
  fixture *f = with_a_changed_byte(small_config(), 3, 77); /* ahead of use */
  kvsift_selection s = block_of_each(f, 3);
  fine(f, kvsift_cuda_store_prefetch(f->store, 0, &s, gpu_stream(), NULL));
  expect_corrupt(f, NULL, 3);

  kvsift_cuda_store_config config = small_config();
  config.run_blocks = 2; /* by the copy engine */
  f = with_a_changed_byte(config, 4, 77);
  s = block_of_each(f, 3);
  for (uint32_t i = 0; i < 2; ++i) f->ranges[(size_t)i * f->stride] = (kvsift_range){48, 96};
  fine(f, kvsift_cuda_store_resolve(f->store, 0, &s, &cache, gpu_stream()));
  expect_refused(f, &cache);
  expect_corrupt(f, &cache, 4);

  config = small_config();
  config.late_blocks = 1; /* behind a late cap */
  f = with_a_changed_byte(config, 3, 77);
  s = block_of_each(f, 3);
  fine(f, kvsift_cuda_store_resolve(f->store, 0, &s, &cache, gpu_stream()));
  assert_int_equal(s.range_counts[1], 0);
  assert_int_equal(kvsift_cuda_store_flush(f->store), KVSIFT_CORRUPT);
  expect_refused(f, &cache);
  expect_corrupt(f, &cache, 3);

  f = with_a_changed_byte(small_config(), 3, 77); /* the block that takes rows again */
  fine(f, kvsift_cuda_store_truncate(f->store, 60, gpu_stream()));
  gpu_wait();
  assert_int_equal(kvsift_cuda_store_flush(f->store), KVSIFT_CORRUPT);
  fixture_free(f);

  config = small_config(); /* int8: a scale */
  config.storage = KVSIFT_I8;
  f = with_a_changed_byte(config, 3, 2 * 32 * 16 + 5);
  s = block_of_each(f, 3);
  fine(f, kvsift_cuda_store_resolve(f->store, 0, &s, &cache, gpu_stream()));
  expect_corrupt(f, &cache, 3);
}

/* A change in what pads a record counts too; without checksums nobody looks. */
static void without_checksums_nobody_looks(void **state) {
  (void)state;
  test_random r = {8};
  fixture *f = fixture_new(small_config(), &r);
  kvsift_cache cache = {.struct_size = sizeof cache};
  create(f);
  fine(f, append(f, 0, 390));
  fine(f, kvsift_cuda_store_flush(f->store));
  record_of(f, 0, 1, 3)[77] ^= 0x10;
  kvsift_selection s = block_of_each(f, 3);
  fine(f, kvsift_cuda_store_resolve(f->store, 0, &s, &cache, gpu_stream()));
  fine(f, kvsift_cuda_store_flush(f->store));
  fixture_free(f);
}

/* One element, or one scale, of token 37 of head 1 is no number. */
static void rows_that_are_not_finite_are_told(void **state) {
  (void)state;
  static const uint16_t numbers[] = {0x7c00u, 0xfc00u, 0x7e01u};
  for (uint32_t i = 0; i < 6; ++i) {
    test_random r = {9};
    kvsift_cuda_store_config config = small_config();
    config.storage = KVSIFT_I8;
    fixture *f = fixture_new(config, &r);
    kvsift_cache cache = {.struct_size = sizeof cache};
    create(f);
    uint8_t *rows = i % 2 == 0 ? f->keys : f->values, *there = i % 2 == 0 ? f->device_keys : f->device_values;
    const uint64_t at = f->head_bytes + 37 * f->row_bytes;
    memcpy(rows + at + 2 * 31, &numbers[i / 2], 2);
    gpu_write(there + at, rows + at, f->row_bytes);
    fine(f, append(f, 0, 40));
    kvsift_selection s = block_of_each(f, 0);
    gpu_wait();
    assert_int_equal(kvsift_cuda_store_resolve(f->store, 0, &s, &cache, gpu_stream()), KVSIFT_NOT_FINITE);
    expect(strstr(kvsift_cuda_store_last_error(f->store), "KV head 1, block 2 ") != NULL, "%s",
           kvsift_cuda_store_last_error(f->store));
    assert_int_equal(kvsift_cuda_store_flush(f->store), KVSIFT_NOT_FINITE);
    fixture_free(f);
  }
}

int main(void) {
  if (!gpu_open()) return 77;
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_failing_driver_loses_the_store),    cmocka_unit_test(a_failing_create_leaves_nothing),
      cmocka_unit_test(a_changed_record_is_refused),         cmocka_unit_test(without_checksums_nobody_looks),
      cmocka_unit_test(rows_that_are_not_finite_are_told),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
