/* Buffers that end where memory ends: one byte read or written behind them is a crash. */
#ifndef KVSIFT_TESTS_GUARDED_H
#define KVSIFT_TESTS_GUARDED_H

#ifndef _DEFAULT_SOURCE
#define _DEFAULT_SOURCE
#endif
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* `bytes` bytes whose last lies before a page that cannot be touched; zero-filled. Never fails. */
static inline void *guarded_new(size_t bytes) {
  const size_t page = (size_t)sysconf(_SC_PAGESIZE), body = (bytes + page - 1) / page * page;
  uint8_t *base =
      (uint8_t *)mmap(NULL, body + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED || mprotect(base + body, page, PROT_NONE) != 0) abort();
  return base + body - bytes;
}

static inline void guarded_free(void *p, size_t bytes) {
  const size_t page = (size_t)sysconf(_SC_PAGESIZE), body = (bytes + page - 1) / page * page;
  if (munmap((uint8_t *)p + bytes - body, body + page) != 0) abort();
}

#endif
