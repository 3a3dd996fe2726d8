// Launches of decode attention.
#pragma once

#include "cuda/attend/attend.h"
#include "cuda/core/launcher.h"

namespace kvsift {

// Lets the kernels have the shared memory that this configuration needs of them.
kvsift_status allow_attend_shared(const CudaDevice &device, const Settings &settings, kvsift_error *error);

// The passes that the step may need: the selection's, and over everything for the observation of a calibration whose output
// stays sparse, where `learns`.
kvsift_status launch_attend(const Launcher &to, const AttendArgs &args, std::uint32_t heads, bool learns);

CacheArgs cache_args(const kvsift_cache &cache);

}  // namespace kvsift
