// For tests of what works beside a policy.
#pragma once

#include "kvsift/kvsift_cuda.h"
#include "policy_on_device.h"

namespace kvsift_test {

// A policy that lends its kernels.
struct Lender {
  kvsift_error error{};
  kvsift_cuda_arenas arenas{};
  kvsift_cuda_policy *policy = nullptr;
  Lender() {
    kvsift_policy_config c{};
    c.struct_size = sizeof c;
    must(kvsift_policy_config_init(&c, KVSIFT_METHOD_FULL), error);
    c.layers = c.kv_heads = c.query_heads = 1;
    c.head_dim = 16;
    c.max_tokens = 64;
    c.error = &error;
    kvsift_cuda_sizes sizes{};
    sizes.struct_size = sizeof sizes;
    must(kvsift_cuda_policy_sizes(&c, &sizes), error);
    arenas.struct_size = sizeof arenas;
    arenas.device = gpu_new(arenas.device_bytes = sizes.device, nullptr);
    arenas.pinned = gpu_new_pinned(arenas.pinned_bytes = sizes.pinned);
    arenas.host = std::aligned_alloc(64, arenas.host_bytes = sizes.host);
    must(kvsift_cuda_policy_create(&c, &arenas, gpu_stream(), &policy), error);
  }
  ~Lender() {
    gpu_wait();
    kvsift_cuda_policy_destroy(policy);
    gpu_free(arenas.device);
    gpu_free_pinned(arenas.pinned);
    std::free(arenas.host);
  }
  Lender(const Lender &) = delete;
  Lender &operator=(const Lender &) = delete;
};

}  // namespace kvsift_test
