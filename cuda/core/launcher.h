// Where launches of one call go.
#pragma once

#include "cuda/core/device.h"

namespace kvsift {

struct Launcher {
  const CudaDevice &device;
  void *stream;
  kvsift_error *error;
};

}  // namespace kvsift
