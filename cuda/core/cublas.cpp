#include "cuda/core/cublas.h"

#include <dlfcn.h>

#include <cstdlib>

namespace kvsift {
namespace {

// What is used of it is the same in both.
const char *const kNames[] = {"libcublasLt.so.13", "libcublasLt.so.12"};

// Stays loaded once it was: it has exit handlers and kernels of its own, and loading it takes long.
constexpr int kHow = RTLD_LAZY | RTLD_LOCAL | RTLD_NODELETE;

void *open_library(const char **path) {
  *path = std::getenv("KVSIFT_CUBLASLT");
  if (*path != nullptr) return dlopen(*path, kHow);
  for (const char *name : kNames) {
    *path = name;
    if (void *library = dlopen(name, kHow)) return library;
  }
  *path = kNames[0];
  return nullptr;
}

template <class F>
void find(const Cublas &cublas, const char *name, F *function, const char **missing) {
  *function = reinterpret_cast<F>(dlsym(cublas.library, name));
  if (*function == nullptr && *missing == nullptr) *missing = name;
}

// Null, or the first function that the library lacks.
const char *find_all(Cublas *c) {
  const char *missing = nullptr;
  find(*c, "cublasLtCreate", &c->create, &missing);
  find(*c, "cublasLtDestroy", &c->destroy, &missing);
  find(*c, "cublasLtGetStatusName", &c->status_name, &missing);
  find(*c, "cublasLtMatmulDescCreate", &c->operation_create, &missing);
  find(*c, "cublasLtMatmulDescDestroy", &c->operation_destroy, &missing);
  find(*c, "cublasLtMatmulDescSetAttribute", &c->operation_set, &missing);
  find(*c, "cublasLtMatrixLayoutCreate", &c->layout_create, &missing);
  find(*c, "cublasLtMatrixLayoutDestroy", &c->layout_destroy, &missing);
  find(*c, "cublasLtMatrixLayoutSetAttribute", &c->layout_set, &missing);
  find(*c, "cublasLtMatmulPreferenceCreate", &c->preference_create, &missing);
  find(*c, "cublasLtMatmulPreferenceDestroy", &c->preference_destroy, &missing);
  find(*c, "cublasLtMatmulPreferenceSetAttribute", &c->preference_set, &missing);
  find(*c, "cublasLtMatmulAlgoGetHeuristic", &c->choose, &missing);
  find(*c, "cublasLtMatmul", &c->multiply, &missing);
  return missing;
}

}  // namespace

kvsift_status open_cublas(Cublas *cublas, kvsift_error *error) {
  *cublas = Cublas{};
  const char *path;
  cublas->library = open_library(&path);
  if (cublas->library == nullptr) return fail(error, KVSIFT_UNSUPPORTED, "no cuBLASLt: ", path, " could not be opened");
  const char *missing = find_all(cublas);
  kvsift_status status;
  if (missing != nullptr) {
    status = fail(error, KVSIFT_UNSUPPORTED, "no cuBLASLt: ", path, " has no ", missing);
  } else {
    status = check(*cublas, cublas->create(&cublas->handle), "cublasLtCreate", error);
    if (status != KVSIFT_OK) cublas->handle = nullptr;
  }
  if (status != KVSIFT_OK) close_cublas(cublas);
  return status;
}

void close_cublas(Cublas *cublas) {
  if (cublas->handle != nullptr) cublas->destroy(cublas->handle);
  if (cublas->library != nullptr) dlclose(cublas->library);
  *cublas = Cublas{};
}

kvsift_status check(const Cublas &cublas, cublasStatus_t result, const char *call, kvsift_error *error) {
  if (result == CUBLAS_STATUS_SUCCESS) return KVSIFT_OK;
  const char *name = cublas.status_name(result);
  const bool lacks = result == CUBLAS_STATUS_NOT_SUPPORTED || result == CUBLAS_STATUS_ARCH_MISMATCH;
  return fail(error, lacks ? KVSIFT_UNSUPPORTED : KVSIFT_DEVICE, call, " answered ", name == nullptr ? "unknown status" : name,
              " (", static_cast<std::int32_t>(result), ")");
}

}  // namespace kvsift
