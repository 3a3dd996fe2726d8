#define _POSIX_C_SOURCE 200809L
#include "cases.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

static char current[256];
static uint64_t current_seed;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

cases cases_begin(uint32_t count) {
  cases c = {0, count, 0, 0};
  const char *seed = getenv("KVSIFT_TEST_SEED"), *seconds = getenv("KVSIFT_TEST_SECONDS");
  const char *most = getenv("KVSIFT_TEST_CASES");
  if (most != NULL && strtoull(most, NULL, 0) < c.count) c.count = (uint32_t)strtoull(most, NULL, 0);
  if (seed != NULL) {
    c.seed = strtoull(seed, NULL, 0) - 1;
    c.count = 1;
  } else if (seconds != NULL) {
    c.until = now() + strtod(seconds, NULL);
  }
  return c;
}

bool cases_next(cases *c) {
  const bool more = c->done < c->count || (c->until > 0 && now() < c->until);
  if (!more) return false;
  ++c->done;
  current_seed = ++c->seed;
  return true;
}

void cases_name(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(current, sizeof current, format, arguments);
  va_end(arguments);
}

void expect_failed(const char *file, int line, const char *format, ...) {
  char text[512];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  print_error("%s:%d: %s\n  case: %s\n  rerun with KVSIFT_TEST_SEED=%llu\n", file, line, text, current,
              (unsigned long long)current_seed);
  _fail(file, line);
}
