#include "cuda/core/device.h"

// The fat binaries, put into the archive by embed.S.in.
#define KVSIFT_MODULE(file) \
  extern "C" const unsigned char kvsift_fatbin_##file[] __attribute__((visibility("hidden")));
#define KVSIFT_KERNEL(file, name)
#include "cuda/core/kernel_list.inc"
#undef KVSIFT_MODULE
#undef KVSIFT_KERNEL

namespace kvsift {
namespace {

struct KernelName {
  std::uint32_t module;
  const char *name;
};

const unsigned char *const kFatbins[] = {
#define KVSIFT_MODULE(file) kvsift_fatbin_##file,
#define KVSIFT_KERNEL(file, name)
#include "cuda/core/kernel_list.inc"
#undef KVSIFT_MODULE
#undef KVSIFT_KERNEL
};

const KernelName kNames[] = {
#define KVSIFT_MODULE(file)
#define KVSIFT_KERNEL(file, name) {kModule_##file, "kvsift_" #name},
#include "cuda/core/kernel_list.inc"
#undef KVSIFT_MODULE
#undef KVSIFT_KERNEL
};

// A result with the kernel's name behind the call's.
kvsift_status check_kernel(const Driver &d, CUresult result, const char *call, std::uint32_t kernel, kvsift_error *error) {
  if (result == CUDA_SUCCESS) return KVSIFT_OK;
  const char *name = nullptr;
  if (d.error_name(result, &name) != CUDA_SUCCESS || name == nullptr) name = "unknown error";
  return fail(error, KVSIFT_DEVICE, call, " for ", kNames[kernel].name, " answered ", name, " (",
              static_cast<std::int32_t>(result), ")");
}

kvsift_status load_kernels(CudaDevice *device, kvsift_error *error) {
  const Driver &d = device->driver;
  for (std::uint32_t i = 0; i < kModules; ++i) {
    const CUresult result =
        d.load_library(&device->modules[i], kFatbins[i], nullptr, nullptr, 0, nullptr, nullptr, 0);
    if (kvsift_status s = check(d, result, "cuLibraryLoadData", error)) return s;
  }
  for (std::uint32_t i = 0; i < kKernels; ++i) {
    CUkernel kernel = nullptr;
    const CUresult found = d.kernel(&kernel, device->modules[kNames[i].module], kNames[i].name);
    if (kvsift_status s = check_kernel(d, found, "cuLibraryGetKernel", i, error)) return s;
    const CUresult loaded = d.function(&device->kernels[i], kernel);
    if (kvsift_status s = check_kernel(d, loaded, "cuKernelGetFunction", i, error)) return s;
    // All alike: a multiprocessor that shares its memory out anew for each kernel is idle meanwhile.
    const CUresult shared = d.set_attribute(device->kernels[i], CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT, 100);
    if (kvsift_status s = check_kernel(d, shared, "cuFuncSetAttribute", i, error)) return s;
  }
  return KVSIFT_OK;
}

kvsift_status ask_device(CudaDevice *device, kvsift_error *error) {
  const Driver &d = device->driver;
  CUdevice number = 0;
  if (kvsift_status s = check(d, d.current_device(&number), "cuCtxGetDevice", error)) return s;
  const auto ask = [&](CUdevice_attribute attribute, std::uint32_t *answer) {
    int value = 0;
    const CUresult result = d.device_attribute(&value, attribute, number);
    *answer = static_cast<std::uint32_t>(value);
    return check(d, result, "cuDeviceGetAttribute", error);
  };
  std::uint32_t major = 0;
  int version = 0;
  if (kvsift_status s = ask(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, &device->multiprocessors)) return s;
  if (kvsift_status s = ask(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, &device->shared_bytes)) return s;
  if (kvsift_status s = ask(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, &major)) return s;
  if (kvsift_status s = check(d, d.version(&version), "cuDriverGetVersion", error)) return s;
  device->overlaps = major >= 9 && version >= 12030;  // from then on graphs can hold such launches
  return KVSIFT_OK;
}

}  // namespace

kvsift_status open_device(CudaDevice *device, kvsift_error *error) {
  *device = CudaDevice{};
  if (kvsift_status s = open_driver(&device->driver, error)) return s;
  kvsift_status status = ask_device(device, error);
  if (status == KVSIFT_OK) status = load_kernels(device, error);
  if (status != KVSIFT_OK) close_device(device);
  return status;
}

void close_device(CudaDevice *device) {
  for (CUlibrary module : device->modules) {
    if (module != nullptr) device->driver.unload_library(module);
  }
  close_driver(&device->driver);
  *device = CudaDevice{};
}

kvsift_status launch_kernel(const CudaDevice &device, KernelId kernel, const LaunchShape &shape, void *stream, const void *args,
                            kvsift_error *error) {
  if (shape.x == 0 || shape.y == 0 || shape.z == 0) return KVSIFT_OK;
  void *parameters[] = {const_cast<void *>(args)};
  CUlaunchAttribute overlap{};
  overlap.id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
  overlap.value.programmaticStreamSerializationAllowed = 1;
  CUlaunchConfig config{};
  config.gridDimX = shape.x, config.gridDimY = shape.y, config.gridDimZ = shape.z;
  config.blockDimX = shape.threads, config.blockDimY = config.blockDimZ = 1;
  config.sharedMemBytes = shape.shared_bytes;
  config.hStream = static_cast<CUstream>(stream);
  config.attrs = &overlap;
  config.numAttrs = device.overlaps ? 1 : 0;
  const CUresult result = device.driver.launch(&config, device.kernels[kernel], parameters, nullptr);
  return check_kernel(device.driver, result, "cuLaunchKernelEx", kernel, error);
}

kvsift_status allow_shared(const CudaDevice &device, KernelId kernel, std::uint32_t bytes, kvsift_error *error) {
  const CUresult result = device.driver.set_attribute(
      device.kernels[kernel], CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, static_cast<int>(bytes));
  if (result != CUDA_ERROR_INVALID_VALUE) return check_kernel(device.driver, result, "cuFuncSetAttribute", kernel, error);
  return fail(error, KVSIFT_UNSUPPORTED, kNames[kernel].name, " needs ", bytes,
              " bytes of shared memory a block and some of its own, the device has ", device.shared_bytes);
}

}  // namespace kvsift
