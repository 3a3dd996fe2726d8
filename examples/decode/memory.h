/* The engine's memory: mimalloc where the build found it. Every block is zeroed and starts at a
 * multiple of 64. */
#ifndef DECODE_MEMORY_H
#define DECODE_MEMORY_H

#include <stddef.h>
#include <stdint.h>

void *memory_take(uint64_t count, uint64_t bytes_each); /* null: too much, or none left */
void memory_give(void *block);                          /* null is allowed */

#endif
