/* Strong definitions here replace libc's for the whole process, libc's own calls included. Not for sanitizers, which do
 * the same. */
#include "alloc_guard.h"

#include <errno.h>
#include <stdatomic.h>

extern void *__libc_malloc(size_t bytes);
extern void *__libc_calloc(size_t count, size_t bytes);
extern void *__libc_realloc(void *p, size_t bytes);
extern void __libc_free(void *p);
extern void *__libc_memalign(size_t alignment, size_t bytes);

void *malloc(size_t bytes);
void *calloc(size_t count, size_t bytes);
void *realloc(void *p, size_t bytes);
void free(void *p);
void *memalign(size_t alignment, size_t bytes);
void *aligned_alloc(size_t alignment, size_t bytes);
int posix_memalign(void **p, size_t alignment, size_t bytes);

static atomic_int armed;
static atomic_size_t calls;
static _Atomic(const char *) first;

static void note(const char *name) {
  if (!atomic_load_explicit(&armed, memory_order_relaxed)) return;
  if (atomic_fetch_add(&calls, 1) == 0) atomic_store(&first, name);
}

void alloc_guard_arm(void) {
  atomic_store(&calls, 0);
  atomic_store(&first, NULL);
  atomic_store(&armed, 1);
}

size_t alloc_guard_disarm(void) {
  atomic_store(&armed, 0);
  return atomic_load(&calls);
}

const char *alloc_guard_first(void) {
  const char *name = atomic_load(&first);
  return name != NULL ? name : "none";
}

void *malloc(size_t bytes) {
  note("malloc");
  return __libc_malloc(bytes);
}

void *calloc(size_t count, size_t bytes) {
  note("calloc");
  return __libc_calloc(count, bytes);
}

void *realloc(void *p, size_t bytes) {
  note("realloc");
  return __libc_realloc(p, bytes);
}

void free(void *p) {
  if (p != NULL) note("free");
  __libc_free(p);
}

void *memalign(size_t alignment, size_t bytes) {
  note("memalign");
  return __libc_memalign(alignment, bytes);
}

void *aligned_alloc(size_t alignment, size_t bytes) {
  note("aligned_alloc");
  return __libc_memalign(alignment, bytes);
}

int posix_memalign(void **p, size_t alignment, size_t bytes) {
  note("posix_memalign");
  *p = __libc_memalign(alignment, bytes);
  return *p != NULL ? 0 : ENOMEM;
}
