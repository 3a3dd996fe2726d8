/* A whole file in memory, mapped where possible. */
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

#endif
