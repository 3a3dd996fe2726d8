#include "memory.h"

#include <stdlib.h>
#include <string.h>

#ifdef HAVE_MIMALLOC
#include <mimalloc.h>
#endif

#define ALIGNMENT 64u

void *memory_take(uint64_t count, uint64_t bytes_each) {
  if (bytes_each != 0 && count > (SIZE_MAX - ALIGNMENT) / bytes_each) return NULL;
  size_t bytes = (size_t)(count * bytes_each);
  bytes = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  if (bytes == 0) bytes = ALIGNMENT;
#ifdef HAVE_MIMALLOC
  return mi_zalloc_aligned(bytes, ALIGNMENT);
#else
  void *block = aligned_alloc(ALIGNMENT, bytes);
  if (block != NULL) memset(block, 0, bytes);
  return block;
#endif
}

void memory_give(void *block) {
#ifdef HAVE_MIMALLOC
  mi_free(block);
#else
  free(block);
#endif
}
