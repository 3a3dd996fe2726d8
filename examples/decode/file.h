/* A whole file in memory, mapped where possible; and a place for a new one. */
#ifndef DECODE_FILE_H
#define DECODE_FILE_H

#include <stdint.h>

#include "failure.h"

typedef struct mapped_file {
  const void *bytes; /* starts at a multiple of 64 */
  uint64_t size;
} mapped_file;

bool file_map(mapped_file *file, const char *path, failure *why);
void file_unmap(mapped_file *file);

/* Makes an empty file; what is at `path` already is left as it is, and is a failure. */
bool file_claim(const char *path, failure *why);

#endif
