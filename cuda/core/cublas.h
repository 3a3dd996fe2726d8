// cuBLASLt, opened last and only for the forms that are named after it: nothing else needs it installed.
#pragma once

#include <cublasLt.h>

#include "core/status.h"

namespace kvsift {

struct Cublas {
  void *library;  // null: not open
  cublasLtHandle_t handle;
  decltype(&cublasLtCreate) create;
  decltype(&cublasLtDestroy) destroy;
  decltype(&cublasLtGetStatusName) status_name;
  decltype(&cublasLtMatmulDescCreate) operation_create;
  decltype(&cublasLtMatmulDescDestroy) operation_destroy;
  decltype(&cublasLtMatmulDescSetAttribute) operation_set;
  decltype(&cublasLtMatrixLayoutCreate) layout_create;
  decltype(&cublasLtMatrixLayoutDestroy) layout_destroy;
  decltype(&cublasLtMatrixLayoutSetAttribute) layout_set;
  decltype(&cublasLtMatmulPreferenceCreate) preference_create;
  decltype(&cublasLtMatmulPreferenceDestroy) preference_destroy;
  decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set;
  decltype(&cublasLtMatmulAlgoGetHeuristic) choose;
  decltype(&cublasLtMatmul) multiply;
};

// Opens the library and makes a handle for the current context, which must be there. UNSUPPORTED with a sentence where there
// is no library. On success close_cublas is owed.
kvsift_status open_cublas(Cublas *cublas, kvsift_error *error);
void close_cublas(Cublas *cublas);  // one that is not open is allowed

// OK; UNSUPPORTED where that is what the library says; or KVSIFT_DEVICE. The sentence has the names of call and answer.
kvsift_status check(const Cublas &cublas, cublasStatus_t result, const char *call, kvsift_error *error);

}  // namespace kvsift
