/* A slow tier in memory that can be slow, stingy, broken or full: kvsift_store_device for tests and benchmarks. */
#ifndef KVSIFT_TESTS_FAKE_DEVICE_H
#define KVSIFT_TESTS_FAKE_DEVICE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kvsift/store.h"

typedef struct fake_device {
  pthread_mutex_t mutex;
  uint8_t *bytes;
  uint64_t size;
  /* A transfer is done latency_ns after its turn on the wire, which takes bytes / bandwidth; 0: at once. */
  uint64_t latency_ns, bandwidth;
  uint64_t wire_free_ns;
  uint64_t most;        /* of one transfer: short reads and writes; 0: no limit */
  int read_errno, write_errno;
  uint64_t fail_after;  /* transfers that still go well before the errnos hold */
  uint64_t failures;    /* transfers that the errnos then hold for; 0: all */
  uint64_t calls, syncs;
} fake_device;

static inline uint64_t fake_now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline void fake_sleep_until(uint64_t ns) {
  const struct timespec t = {.tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u)};
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR) continue;
}

static inline int64_t fake_move(fake_device *device, int write, uint64_t offset, const kvsift_store_span *spans,
                                uint32_t count) {
  uint64_t total = 0, done = 0, ready = 0;
  int failure = 0;
  pthread_mutex_lock(&device->mutex);
  ++device->calls;
  if (device->fail_after == 0) failure = write ? device->write_errno : device->read_errno;
  else --device->fail_after;
  if (failure != 0 && device->failures > 0 && --device->failures == 0) device->read_errno = device->write_errno = 0;
  for (uint32_t i = 0; i < count; ++i) total += spans[i].bytes;
  if (device->most > 0 && total > device->most) total = device->most;
  if (device->bandwidth > 0) {
    const uint64_t now = fake_now();
    if (device->wire_free_ns < now) device->wire_free_ns = now;
    device->wire_free_ns += (uint64_t)((double)total * 1e9 / (double)device->bandwidth);
    ready = device->wire_free_ns + device->latency_ns;
  }
  if (offset >= device->size) total = 0;
  else if (total > device->size - offset) total = device->size - offset;
  for (uint32_t i = 0; failure == 0 && i < count && done < total; ++i) {
    const uint64_t part = spans[i].bytes < total - done ? spans[i].bytes : total - done;
    if (write) memcpy(device->bytes + offset + done, spans[i].data, part);
    else memcpy(spans[i].data, device->bytes + offset + done, part);
    done += part;
  }
  pthread_mutex_unlock(&device->mutex);
  if (ready > 0) fake_sleep_until(ready);
  return failure != 0 ? -failure : (int64_t)done;
}

static inline int64_t fake_read(void *context, uint64_t offset, const kvsift_store_span *spans, uint32_t count) {
  return fake_move((fake_device *)context, 0, offset, spans, count);
}

static inline int64_t fake_write(void *context, uint64_t offset, const kvsift_store_span *spans, uint32_t count) {
  return fake_move((fake_device *)context, 1, offset, spans, count);
}

static inline int32_t fake_sync(void *context) {
  fake_device *device = (fake_device *)context;
  pthread_mutex_lock(&device->mutex);
  ++device->syncs;
  pthread_mutex_unlock(&device->mutex);
  return 0;
}

static inline void fake_open(fake_device *device, uint64_t size) {
  memset(device, 0, sizeof *device);
  pthread_mutex_init(&device->mutex, NULL);
  device->bytes = (uint8_t *)calloc(1, size);
  device->size = size;
}

static inline void fake_close(fake_device *device) {
  free(device->bytes);
  pthread_mutex_destroy(&device->mutex);
}

/* What goes wrong from now on; everything else as it was. */
static inline void fake_break(fake_device *device, int read_errno, int write_errno, uint64_t after) {
  pthread_mutex_lock(&device->mutex);
  device->read_errno = read_errno;
  device->write_errno = write_errno;
  device->fail_after = after;
  pthread_mutex_unlock(&device->mutex);
}

static inline kvsift_store_device fake_calls(fake_device *device) {
  const kvsift_store_device calls = {device, fake_read, fake_write, fake_sync};
  return calls;
}

#endif
