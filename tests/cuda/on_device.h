// An array in device memory, for as long as it is in scope.
#pragma once

#include <cstddef>

#include "gpu.h"

namespace kvsift_test {

template <class T>
struct OnDevice {
  T *data;
  std::size_t count;
  explicit OnDevice(std::size_t n, const T *from = nullptr)
      : data(static_cast<T *>(gpu_new(n * sizeof(T), from))), count(n) {}
  ~OnDevice() { gpu_free(data); }
  OnDevice(const OnDevice &) = delete;
  OnDevice &operator=(const OnDevice &) = delete;
  void read(T *to) const { gpu_read(to, data, count * sizeof(T)); }
};

}  // namespace kvsift_test
