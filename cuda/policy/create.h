// Device policies come and go.
#pragma once

#include "cuda/policy/policy.h"

namespace kvsift {

struct CudaArenas {
  void *device, *pinned, *host;
};

// The arenas have the sizes of `places`. On failure nothing is owed.
kvsift_status create_on_device(const CudaPlaces &places, const CudaArenas &arenas, void *stream, CudaPolicy **policy,
                               kvsift_error *error);
kvsift_status reset_on_device(CudaPolicy *policy, void *stream);
void destroy_on_device(CudaPolicy *policy);

// Between a CPU policy of the same configuration and the device.
kvsift_status upload(CudaPolicy *policy, const Policy &from, void *stream);
kvsift_status download(const CudaPolicy &policy, Policy *to, void *stream, kvsift_error *error);

// All of the device arena of `from`, and what the host knows of it.
kvsift_status copy_policy(const CudaPolicy &from, CudaPolicy *to, void *stream);

}  // namespace kvsift
