// A device as the library uses it: the driver and its kernels, found at create. Lies in the host arena of the object that
// it serves; nothing of it is shared.
#pragma once

#include "cuda/core/driver.h"

namespace kvsift {

enum KernelModule : std::uint32_t {
#define KVSIFT_MODULE(file) kModule_##file,
#define KVSIFT_KERNEL(file, name)
#include "cuda/core/kernel_list.inc"
#undef KVSIFT_MODULE
#undef KVSIFT_KERNEL
  kModules
};

enum KernelId : std::uint32_t {
#define KVSIFT_MODULE(file)
#define KVSIFT_KERNEL(file, name) kKernel_##name,
#include "cuda/core/kernel_list.inc"
#undef KVSIFT_MODULE
#undef KVSIFT_KERNEL
  kKernels
};

struct CudaDevice {
  Driver driver;
  CUlibrary modules[kModules];
  CUfunction kernels[kKernels];
  std::uint32_t multiprocessors;
  std::uint32_t shared_bytes;  // the most that a block can be given
  bool overlaps;               // a kernel may come to the device while the one before it ends (begin_kernel)
};

// Opens the driver and loads all kernels into the current context, so that no later call has to.
kvsift_status open_device(CudaDevice *device, kvsift_error *error);
void close_device(CudaDevice *device);

struct LaunchShape {
  std::uint32_t x, y, z;      // blocks
  std::uint32_t threads;      // of a block
  std::uint32_t shared_bytes; // dynamic; more than 48 KiB must have been allowed by allow_shared
};

kvsift_status launch_kernel(const CudaDevice &device, KernelId kernel, const LaunchShape &shape, void *stream, const void *args,
                            kvsift_error *error);

// `args` is the one struct that the kernel takes.
template <class Args>
kvsift_status launch(const CudaDevice &device, KernelId kernel, const LaunchShape &shape, void *stream, const Args &args,
                     kvsift_error *error) {
  return launch_kernel(device, kernel, shape, stream, &args, error);
}

// UNSUPPORTED where the device has less.
kvsift_status allow_shared(const CudaDevice &device, KernelId kernel, std::uint32_t bytes, kvsift_error *error);

}  // namespace kvsift
