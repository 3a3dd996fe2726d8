/* Counts calls of the allocator, anywhere in the process. */
#ifndef KVSIFT_TESTS_ALLOC_GUARD_H
#define KVSIFT_TESTS_ALLOC_GUARD_H

#include <stddef.h>

void alloc_guard_arm(void);
size_t alloc_guard_disarm(void);    /* calls since arm */
const char *alloc_guard_first(void); /* the first function called, "none" */

#endif
