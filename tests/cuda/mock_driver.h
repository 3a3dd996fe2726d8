// What the stand-in for the CUDA driver tells and obeys besides the driver's own calls; a test finds these by dlsym.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// From now on the `nth` call (from 1) of `function` ("cuLaunchKernelEx") answers `result`; nth 0: none does. One rule at a
// time. The environment sets one too: KVSIFT_MOCK_FAIL=cuLaunchKernelEx:3:700.
void kvsift_mock_fail(const char *function, uint32_t nth, int32_t result);

// Calls of `function` so far; null: of all that allocate or wait for the device.
uint64_t kvsift_mock_calls(const char *function);

// Whether it tells of accesses that nothing orders (emulation/races.h).
bool kvsift_mock_finds_races(void);

#ifdef __cplusplus
}

// For the stand-in of cuBLASLt, whose calls count and fail among the driver's.
#include <functional>

int32_t kvsift_mock_enter(const char *function);  // what it must answer instead of doing its work; 0: nothing
bool kvsift_mock_on_device(const void *pointer, uint64_t bytes);
void kvsift_mock_submit(void *stream, std::function<void()> work);
#endif
