// The CUDA driver, opened when the first device object is made: a program that links the library needs no CUDA to start.
#pragma once

#include <cuda.h>

#include "core/status.h"

namespace kvsift {

struct Driver {
  void *library;
  decltype(&cuInit) init;
  decltype(&cuDriverGetVersion) version;
  decltype(&cuDeviceGetCount) device_count;
  decltype(&cuDeviceGetAttribute) device_attribute;
  decltype(&cuCtxGetCurrent) current_context;
  decltype(&cuCtxGetDevice) current_device;
  decltype(&cuLibraryLoadData) load_library;
  decltype(&cuLibraryUnload) unload_library;
  decltype(&cuLibraryGetKernel) kernel;
  decltype(&cuKernelGetFunction) function;
  decltype(&cuFuncSetAttribute) set_attribute;
  decltype(&cuLaunchKernelEx) launch;
  decltype(&cuMemHostGetDevicePointer) device_pointer;
  decltype(&cuMemcpyHtoDAsync) to_device;
  decltype(&cuMemcpyDtoHAsync) to_host;
  decltype(&cuMemcpyDtoDAsync) copy;
  decltype(&cuMemsetD8Async) fill;
  decltype(&cuStreamCreate) stream_create;
  decltype(&cuStreamDestroy) stream_destroy;
  decltype(&cuStreamSynchronize) stream_synchronize;
  decltype(&cuStreamWaitEvent) stream_wait;
  decltype(&cuEventCreate) event_create;
  decltype(&cuEventDestroy) event_destroy;
  decltype(&cuEventRecord) event_record;
  decltype(&cuEventQuery) event_query;
  decltype(&cuEventSynchronize) event_synchronize;
  decltype(&cuGetErrorName) error_name;
};

// NO_DEVICE with a sentence where there is no driver, no device or no context. On success close_driver is owed.
kvsift_status open_driver(Driver *driver, kvsift_error *error);
void close_driver(Driver *driver);

// OK, or KVSIFT_DEVICE with the name of the call and of its result.
kvsift_status check(const Driver &driver, CUresult result, const char *call, kvsift_error *error);

}  // namespace kvsift
