// Rows of a cache, here and on the device.
#pragma once

#include "kernel_cases.h"
#include "policy_on_device.h"

namespace kvsift_test {

// [token][head][dim], `gap` elements between heads.
struct Stored {
  kvsift_view view{};
  std::uint64_t bytes;
  std::uint8_t *host;
  float *scales;
  OnDevice<std::uint8_t> on_device;
  OnDevice<float> scales_on_device;

  Stored(Random &random, kvsift_type type, std::uint32_t tokens, std::uint32_t heads, std::uint32_t dim, std::uint32_t gap)
      : bytes(std::uint64_t{tokens} * heads * (dim + gap) * element_bytes(type)),
        host(static_cast<std::uint8_t *>(std::calloc(1, bytes))),
        scales(static_cast<float *>(std::calloc(std::uint64_t{tokens} * heads, sizeof(float)))),
        on_device(bytes),
        scales_on_device(std::uint64_t{tokens} * heads) {
    const std::uint32_t size = element_bytes(type);
    view.type = type;
    view.head_stride = std::uint64_t{dim + gap} * size;
    view.token_stride = view.head_stride * heads;
    for (std::uint64_t i = 0; i < bytes / size; ++i) {
      store_element(host + i * size, type, type == KVSIFT_I8 ? random.uniform() * 100 : random.uniform() * 2);
    }
    for (std::uint64_t i = 0; i < std::uint64_t{tokens} * heads; ++i) scales[i] = 0.02f + 0.01f * random.uniform();
    view.data = host;
    if (type == KVSIFT_I8) {
      view.scales = scales;
      view.scale_head_stride = sizeof(float);
      view.scale_token_stride = sizeof(float) * heads;
    }
    gpu_write(on_device.data, host, bytes);
    gpu_write(scales_on_device.data, scales, scales_on_device.count * sizeof(float));
  }
  ~Stored() {
    std::free(host);
    std::free(scales);
  }
  kvsift_view there() const {
    kvsift_view v = view;
    v.data = on_device.data;
    if (v.scales != nullptr) v.scales = scales_on_device.data;
    return v;
  }
};

}  // namespace kvsift_test
