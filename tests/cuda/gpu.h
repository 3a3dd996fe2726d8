// A device for tests: the machine's own, or the stand-in. Memory, copies and graphs by the driver's functions, found at run
// time as the library finds them.
#pragma once

#include <cuda.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// False, with one line that says why, where there is neither a device nor a stand-in. A test program calls it first.
bool gpu_open(void);
bool gpu_is_mock(void);
// Whether streams run in turn, so that one may look at what another has not waited for.
bool gpu_is_in_turn(void);
const char *gpu_name(void);

// Device memory; the contents of `from`, if it is not null.
void *gpu_new(size_t bytes, const void *from);
void gpu_free(void *memory);
void *gpu_new_pinned(size_t bytes);
void gpu_free_pinned(void *memory);
void gpu_write(void *to, const void *from, size_t bytes);
// Waits for the device first.
void gpu_read(void *to, const void *from, size_t bytes);
void gpu_wait(void);
void gpu_copy(void *to, const void *from, size_t bytes);  // within the device, in the stream

void *gpu_stream(void);  // the one that all of these use
void *gpu_new_stream(void);
void gpu_free_stream(void *stream);
// What is put into `stream` from now on comes after what is in `before` now; can be captured.
void gpu_follow(void *stream, void *before);

// Two marks in the stream, and the milliseconds between them on the device; waits for the second.
void gpu_begin_clock(void);
double gpu_end_clock(void);

void gpu_begin_capture(void);
CUgraphExec gpu_end_capture(void);
void gpu_replay(CUgraphExec graph);
void gpu_free_graph(CUgraphExec graph);

// The stand-in's own (mock_driver.h); on a device they do nothing and answer 0.
void gpu_fail(const char *function, uint32_t nth, int32_t result);
uint64_t gpu_calls(const char *function);

#ifdef __cplusplus
}
#endif
