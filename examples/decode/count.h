/* A whole number as an option's value. */
#ifndef DECODE_COUNT_H
#define DECODE_COUNT_H

#include <stdint.h>

#include "failure.h"

bool read_count(const char *option, const char *text, uint64_t most, uint64_t *out, failure *why);

#endif
