// A policy on the CPU and one on the device, of one configuration.
#pragma once

#include "kvsift/kvsift_cuda.h"
#include "policy_on_device.h"

#include <setjmp.h>
#include <stdarg.h>
extern "C" {
#include <cmocka.h>
}

namespace kvsift_test {

struct Both {
  kvsift_error error{};
  kvsift_policy_config config;
  void *arena, *copy_arena;
  kvsift_policy *cpu = nullptr, *copy = nullptr;
  kvsift_cuda_arenas arenas{};
  kvsift_cuda_policy *device = nullptr;

  explicit Both(const kvsift_policy_config &c) : config(c) {
    config.error = &error;
    std::uint64_t bytes;
    must(kvsift_policy_arena_size(&config, &bytes, nullptr), error);
    arena = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
    copy_arena = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
    must(kvsift_policy_create(&config, arena, bytes, &cpu), error);
    must(kvsift_policy_create(&config, copy_arena, bytes, &copy), error);
    kvsift_cuda_sizes sizes{};
    sizes.struct_size = sizeof sizes;
    must(kvsift_cuda_policy_sizes(&config, &sizes), error);
    arenas.struct_size = sizeof arenas;
    arenas.device = gpu_new(sizes.device, nullptr);
    arenas.pinned = gpu_new_pinned(sizes.pinned);
    arenas.host = std::aligned_alloc(64, (sizes.host + 63) / 64 * 64);
    arenas.device_bytes = sizes.device, arenas.pinned_bytes = sizes.pinned, arenas.host_bytes = sizes.host;
    must(kvsift_cuda_policy_create(&config, &arenas, gpu_stream(), &device), error);
  }
  ~Both() {
    kvsift_cuda_policy_destroy(device);
    gpu_free(arenas.device);
    gpu_free_pinned(arenas.pinned);
    std::free(arenas.host);
    std::free(arena);
    std::free(copy_arena);
  }
  void must_on_cpu(kvsift_status status) const {
    if (status != KVSIFT_OK) fail_msg("%s", kvsift_last_error(cpu));
  }
  void must_on_device(kvsift_status status) const {
    if (status != KVSIFT_OK) fail_msg("%s", kvsift_cuda_last_error(device));
  }
};

}  // namespace kvsift_test
