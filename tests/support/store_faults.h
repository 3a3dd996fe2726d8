/* A store over a device that fails when it is told to. */
#ifndef KVSIFT_TESTS_STORE_FAULTS_H
#define KVSIFT_TESTS_STORE_FAULTS_H

#include "fake_device.h"
#include "store_fixture.h"

static fake_device device;
static kvsift_store_device calls;

static inline void custom_device(fixture *f) {
  uint64_t slow = 0;
  assert_int_equal(kvsift_store_slow_size(&f->config, &slow), KVSIFT_INVALID_ARGUMENT); /* no device yet */
  calls = fake_calls(&device);
  f->config.device = &calls;
  assert_int_equal(kvsift_store_slow_size(&f->config, &slow), KVSIFT_OK);
  fake_open(&device, slow);
}

static inline void custom(fixture *f) {
  fixture_config(f, KVSIFT_STORE_CUSTOM);
  custom_device(f);
}

static inline void end(fixture *f) {
  fixture_end(f);
  fake_close(&device);
}

static inline void expect_text(const char *message, const char *part) {
  if (strstr(message, part) == NULL) fail_msg("no \"%s\" in \"%s\"", part, message);
}

static inline void await_errors(const fixture *f, uint64_t count) {
  for (int ms = 0; fixture_stats(f).io_errors < count; ++ms) {
    if (ms == 10000) fail_msg("waited in vain for %u I/O errors", (unsigned)count);
    fake_sleep_until(fake_now() + 1000000);
  }
}

static inline void await_ticket(const fixture *f, kvsift_ticket ticket) {
  uint32_t done = 0;
  while (kvsift_store_poll(f->store, ticket, &done) == KVSIFT_OK && done == 0) fake_sleep_until(fake_now() + 1000000);
}

static inline uint64_t bytes_read(const fixture *f) { return fixture_stats(f).bytes_read; }

#endif
