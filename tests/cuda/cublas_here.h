// Which cuBLASLt a test runs against.
#pragma once

#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>

#include "cuda/balance/products.h"
#include "mock_cublas.h"
#include "policy_on_device.h"

namespace kvsift_test {

using namespace kvsift;

// False, with one line that says why, where there is none; else a line that tells which one it is.
inline bool cublas_is_here() {
  Cublas cublas;
  kvsift_error error{};
  const kvsift_status status = open_cublas(&cublas, &error);
  if (status == KVSIFT_UNSUPPORTED) {
    std::printf("skipped: %s\n", error.message);
    return false;
  }
  must(status, error);
  const auto version = reinterpret_cast<decltype(&cublasLtGetVersion)>(dlsym(cublas.library, "cublasLtGetVersion"));
  const bool mock = dlsym(cublas.library, "kvsift_mock_cublas_alive") != nullptr;
  if (mock) std::printf("cuBLASLt: the stand-in\n");
  else std::printf("cuBLASLt: version %zu\n", version == nullptr ? 0 : version());
  close_cublas(&cublas);
  return true;
}

// What the stand-in has handed out and not got back; 0 with the real one. Keeps the stand-in open.
inline std::int32_t cublas_alive() {
  const char *path = std::getenv("KVSIFT_CUBLASLT");
  static void *library = path == nullptr ? nullptr : dlopen(path, RTLD_LAZY | RTLD_LOCAL);
  if (library == nullptr) return 0;
  const auto alive = reinterpret_cast<decltype(&kvsift_mock_cublas_alive)>(dlsym(library, "kvsift_mock_cublas_alive"));
  return alive == nullptr ? 0 : alive();
}

}  // namespace kvsift_test
