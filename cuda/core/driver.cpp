#include "cuda/core/driver.h"

#include <dlfcn.h>

#include <cstdlib>

namespace kvsift {
namespace {

// The versioned names that cuda.h gives its functions.
#define KVSIFT_TEXT(name) #name
#define KVSIFT_SYMBOL(name) KVSIFT_TEXT(name)

template <class F>
bool find(const Driver &driver, const char *name, F *function, const char **missing) {
  *function = reinterpret_cast<F>(dlsym(driver.library, name));
  if (*function == nullptr && *missing == nullptr) *missing = name;
  return *function != nullptr;
}

// Null, or the first function that the library lacks.
const char *find_all(Driver *d) {
  const char *missing = nullptr;
  find(*d, KVSIFT_SYMBOL(cuInit), &d->init, &missing);
  find(*d, KVSIFT_SYMBOL(cuDriverGetVersion), &d->version, &missing);
  find(*d, KVSIFT_SYMBOL(cuDeviceGetCount), &d->device_count, &missing);
  find(*d, KVSIFT_SYMBOL(cuDeviceGetAttribute), &d->device_attribute, &missing);
  find(*d, KVSIFT_SYMBOL(cuCtxGetCurrent), &d->current_context, &missing);
  find(*d, KVSIFT_SYMBOL(cuCtxGetDevice), &d->current_device, &missing);
  find(*d, KVSIFT_SYMBOL(cuLibraryLoadData), &d->load_library, &missing);
  find(*d, KVSIFT_SYMBOL(cuLibraryUnload), &d->unload_library, &missing);
  find(*d, KVSIFT_SYMBOL(cuLibraryGetKernel), &d->kernel, &missing);
  find(*d, KVSIFT_SYMBOL(cuKernelGetFunction), &d->function, &missing);
  find(*d, KVSIFT_SYMBOL(cuFuncSetAttribute), &d->set_attribute, &missing);
  find(*d, KVSIFT_SYMBOL(cuLaunchKernelEx), &d->launch, &missing);
  find(*d, KVSIFT_SYMBOL(cuMemHostGetDevicePointer), &d->device_pointer, &missing);
  find(*d, KVSIFT_SYMBOL(cuMemcpyHtoDAsync), &d->to_device, &missing);
  find(*d, KVSIFT_SYMBOL(cuMemcpyDtoHAsync), &d->to_host, &missing);
  find(*d, KVSIFT_SYMBOL(cuMemcpyDtoDAsync), &d->copy, &missing);
  find(*d, KVSIFT_SYMBOL(cuMemsetD8Async), &d->fill, &missing);
  find(*d, KVSIFT_SYMBOL(cuStreamCreate), &d->stream_create, &missing);
  find(*d, KVSIFT_SYMBOL(cuStreamDestroy), &d->stream_destroy, &missing);
  find(*d, KVSIFT_SYMBOL(cuStreamSynchronize), &d->stream_synchronize, &missing);
  find(*d, KVSIFT_SYMBOL(cuStreamWaitEvent), &d->stream_wait, &missing);
  find(*d, KVSIFT_SYMBOL(cuEventCreate), &d->event_create, &missing);
  find(*d, KVSIFT_SYMBOL(cuEventDestroy), &d->event_destroy, &missing);
  find(*d, KVSIFT_SYMBOL(cuEventRecord), &d->event_record, &missing);
  find(*d, KVSIFT_SYMBOL(cuEventQuery), &d->event_query, &missing);
  find(*d, KVSIFT_SYMBOL(cuEventSynchronize), &d->event_synchronize, &missing);
  find(*d, KVSIFT_SYMBOL(cuGetErrorName), &d->error_name, &missing);
  return missing;
}

kvsift_status check_device(const Driver &d, kvsift_error *error) {
  int devices = 0;
  const CUresult start = d.init(0);
  if (start != CUDA_SUCCESS) {
    check(d, start, "cuInit", error);
    if (error != nullptr) error->status = KVSIFT_NO_DEVICE;
    return KVSIFT_NO_DEVICE;
  }
  if (kvsift_status s = check(d, d.device_count(&devices), "cuDeviceGetCount", error)) return s;
  if (devices == 0) return fail(error, KVSIFT_NO_DEVICE, "no CUDA device: the driver counts none");
  CUcontext context = nullptr;
  if (kvsift_status s = check(d, d.current_context(&context), "cuCtxGetCurrent", error)) return s;
  if (context != nullptr) return KVSIFT_OK;
  return fail(error, KVSIFT_NO_DEVICE, "no CUDA context is current on this thread: make one first (cudaSetDevice)");
}

}  // namespace

kvsift_status open_driver(Driver *driver, kvsift_error *error) {
  *driver = Driver{};
  const char *path = std::getenv("KVSIFT_CUDA_DRIVER");
  if (path == nullptr) path = "libcuda.so.1";
  driver->library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (driver->library == nullptr) return fail(error, KVSIFT_NO_DEVICE, "no CUDA device: ", path, " could not be opened");
  const char *missing = find_all(driver);
  kvsift_status status = KVSIFT_OK;
  if (missing != nullptr) {
    status = fail(error, KVSIFT_NO_DEVICE, "no CUDA device: ", path, " has no ", missing, ", a newer driver is needed");
  } else {
    status = check_device(*driver, error);
  }
  if (status != KVSIFT_OK) close_driver(driver);
  return status;
}

void close_driver(Driver *driver) {
  if (driver->library != nullptr) dlclose(driver->library);
  *driver = Driver{};
}

kvsift_status check(const Driver &driver, CUresult result, const char *call, kvsift_error *error) {
  if (result == CUDA_SUCCESS) return KVSIFT_OK;
  const char *name = nullptr;
  if (driver.error_name(result, &name) != CUDA_SUCCESS || name == nullptr) name = "unknown error";
  return fail(error, KVSIFT_DEVICE, call, " answered ", name, " (", static_cast<std::int32_t>(result), ")");
}

}  // namespace kvsift
