/* Why something did not work: one sentence for the person at the terminal. */
#ifndef DECODE_FAILURE_H
#define DECODE_FAILURE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>

typedef struct failure {
  char text[512];
} failure;

/* Always false, so that a function can `return fail(...)`. */
__attribute__((format(printf, 2, 3))) static inline bool fail(failure *why, const char *format,
                                                              ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(why->text, sizeof why->text, format, arguments);
  va_end(arguments);
  return false;
}

#endif
