// A stand-in for libcublasLt.so, beside the driver's: float32 matrices multiplied on the host when their stream comes that far.
// Stricter than the real one: what a multiplication is given must be what its algorithm was chosen for.
#include "mock_cublas.h"

#include <cublasLt.h>

#include <cstdint>
#include <cstring>
#include <vector>

#include "mock_driver.h"

namespace {

struct Operation {
  cublasComputeType_t compute;
  std::int32_t turned_a = CUBLAS_OP_N, turned_b = CUBLAS_OP_N;
};

struct Matrix {
  std::uint64_t rows, columns;
  std::int64_t lead, stride = 0;
  std::int32_t batch = 1;
  // Elements from the first of the first matrix to the last of the last.
  std::uint64_t extent() const {
    return static_cast<std::uint64_t>(stride) * static_cast<std::uint64_t>(batch - 1) +
           static_cast<std::uint64_t>(lead) * (columns - 1) + rows;
  }
};

struct Preference {
  std::uint64_t workspace = 0;
};

// What lies in a cublasLtMatmulAlgo_t.
struct Algorithm {
  std::uint64_t magic, m, n, k, workspace;
};
constexpr std::uint64_t kMagic = 0x6b76736966744c74, kWorkspace = 4096;

std::int32_t alive;

// Handles are the objects themselves.
Operation *operation_of(cublasLtMatmulDesc_t handle) { return reinterpret_cast<Operation *>(handle); }
Matrix *matrix_of(cublasLtMatrixLayout_t handle) { return reinterpret_cast<Matrix *>(handle); }
Preference *preference_of(cublasLtMatmulPreference_t handle) { return reinterpret_cast<Preference *>(handle); }

template <class Object, class Handle>
cublasStatus_t make(Handle *handle, const Object &object) {
  *handle = reinterpret_cast<Handle>(new Object(object));
  ++alive;
  return CUBLAS_STATUS_SUCCESS;
}

template <class Object, class Handle>
cublasStatus_t end(Handle handle) {
  if (handle == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
  delete reinterpret_cast<Object *>(handle);
  --alive;
  return CUBLAS_STATUS_SUCCESS;
}

template <class T>
cublasStatus_t set(T *to, const void *from, std::size_t bytes) {
  if (bytes != sizeof *to) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(to, from, bytes);
  return CUBLAS_STATUS_SUCCESS;
}

#define ENTER(function)                                                                   \
  if (const std::int32_t told = kvsift_mock_enter(#function); told != 0) return static_cast<cublasStatus_t>(told)

// Result: m x n, added over k.
struct Shape {
  std::uint64_t m, n, k;
};

bool shape_of(const Operation &o, const Matrix &a, const Matrix &b, const Matrix &c, const Matrix &d, Shape *shape) {
  const bool turned_a = o.turned_a == CUBLAS_OP_T, turned_b = o.turned_b == CUBLAS_OP_T;
  *shape = {turned_a ? a.columns : a.rows, turned_b ? b.rows : b.columns, turned_a ? a.rows : a.columns};
  for (const Matrix *result : {&c, &d}) {
    if (result->rows != shape->m || result->columns != shape->n || result->batch != a.batch) return false;
  }
  return (turned_b ? b.columns : b.rows) == shape->k && b.batch == a.batch;
}

// To the eleven significant bits that tensor cores read.
float rounded(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, 4);
  bits = (bits + 0xfff + (bits >> 13 & 1)) & ~0x1fffu;
  std::memcpy(&x, &bits, 4);
  return x;
}

// Lines of what is added over: [count][k].
std::vector<float> lines_of(const float *from, const Matrix &of, bool k_runs, std::uint64_t count, std::uint64_t k, bool tf32) {
  std::vector<float> lines(count * k);
  for (std::uint64_t i = 0; i < count; ++i) {
    for (std::uint64_t l = 0; l < k; ++l) {
      const std::uint64_t lead = static_cast<std::uint64_t>(of.lead);
      const float x = k_runs ? from[i * lead + l] : from[l * lead + i];
      lines[i * k + l] = tf32 ? rounded(x) : x;
    }
  }
  return lines;
}

float dot(const float *a, const float *b, std::uint64_t count) {
  constexpr std::uint64_t kLanes = 16;
  float lanes[kLanes] = {}, sum = 0.0f;
  std::uint64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (std::uint64_t l = 0; l < kLanes; ++l) lanes[l] += a[i + l] * b[i + l];
  }
  for (; i < count; ++i) sum += a[i] * b[i];
  for (const float lane : lanes) sum += lane;
  return sum;
}

void multiply(const Operation &o, const Matrix &of_a, const float *a, const Matrix &of_b, const float *b, const Matrix &of_d,
              float *d, const Shape &s) {
  const bool tf32 = o.compute == CUBLAS_COMPUTE_32F_FAST_TF32;
  for (std::int32_t g = 0; g < of_a.batch; ++g) {
    const std::vector<float> left = lines_of(a + g * of_a.stride, of_a, o.turned_a == CUBLAS_OP_T, s.m, s.k, tf32);
    const std::vector<float> right = lines_of(b + g * of_b.stride, of_b, o.turned_b == CUBLAS_OP_N, s.n, s.k, tf32);
    for (std::uint64_t j = 0; j < s.n; ++j) {
      float *column = d + g * of_d.stride + static_cast<std::int64_t>(j) * of_d.lead;
      for (std::uint64_t i = 0; i < s.m; ++i) column[i] = dot(left.data() + i * s.k, right.data() + j * s.k, s.k);
    }
  }
}

bool aligned(const void *pointer) { return reinterpret_cast<std::uintptr_t>(pointer) % 256 == 0; }

}  // namespace

extern "C" {

std::int32_t kvsift_mock_cublas_alive() { return alive; }

size_t cublasLtGetVersion() { return 0; }

const char *cublasLtGetStatusName(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_NOT_INITIALIZED: return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_ALLOC_FAILED: return "CUBLAS_STATUS_ALLOC_FAILED";
    case CUBLAS_STATUS_INVALID_VALUE: return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_NOT_SUPPORTED: return "CUBLAS_STATUS_NOT_SUPPORTED";
    default: return nullptr;
  }
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle) {
  ENTER(cublasLtCreate);
  return make(handle, kMagic);
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) { return end<std::uint64_t>(handle); }

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *handle, cublasComputeType_t compute, cudaDataType_t scale) {
  ENTER(cublasLtMatmulDescCreate);
  if (scale != CUDA_R_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
  if (compute != CUBLAS_COMPUTE_32F && compute != CUBLAS_COMPUTE_32F_FAST_TF32) return CUBLAS_STATUS_NOT_SUPPORTED;
  return make(handle, Operation{compute});
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t handle) { return end<Operation>(handle); }
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t handle, cublasLtMatmulDescAttributes_t what, const void *value,
                                              size_t bytes) {
  ENTER(cublasLtMatmulDescSetAttribute);
  if (what == CUBLASLT_MATMUL_DESC_TRANSA) return set(&operation_of(handle)->turned_a, value, bytes);
  if (what == CUBLASLT_MATMUL_DESC_TRANSB) return set(&operation_of(handle)->turned_b, value, bytes);
  return CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *handle, cudaDataType type, uint64_t rows, uint64_t columns,
                                          int64_t lead) {
  ENTER(cublasLtMatrixLayoutCreate);
  if (type != CUDA_R_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
  if (rows == 0 || columns == 0 || lead < static_cast<std::int64_t>(rows)) return CUBLAS_STATUS_INVALID_VALUE;
  return make(handle, Matrix{rows, columns, lead});
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t handle) { return end<Matrix>(handle); }
cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t handle, cublasLtMatrixLayoutAttribute_t what,
                                                const void *value, size_t bytes) {
  ENTER(cublasLtMatrixLayoutSetAttribute);
  if (what == CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT) return set(&matrix_of(handle)->batch, value, bytes);
  if (what == CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET) return set(&matrix_of(handle)->stride, value, bytes);
  return CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *handle) {
  ENTER(cublasLtMatmulPreferenceCreate);
  return make(handle, Preference{});
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t handle) { return end<Preference>(handle); }
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t handle, cublasLtMatmulPreferenceAttributes_t what,
                                                    const void *value, size_t bytes) {
  ENTER(cublasLtMatmulPreferenceSetAttribute);
  if (what == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES) return set(&preference_of(handle)->workspace, value, bytes);
  return CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t operation, cublasLtMatrixLayout_t a,
                                              cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int wanted,
                                              cublasLtMatmulHeuristicResult_t *found, int *count) {
  ENTER(cublasLtMatmulAlgoGetHeuristic);
  Shape s;
  if (wanted < 1 || !shape_of(*operation_of(operation), *matrix_of(a), *matrix_of(b), *matrix_of(c), *matrix_of(d), &s)) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  const std::uint64_t most = preference_of(preference)->workspace;
  const Algorithm algorithm{kMagic, s.m, s.n, s.k, most < kWorkspace ? most : kWorkspace};
  *found = cublasLtMatmulHeuristicResult_t{};
  std::memcpy(&found->algo, &algorithm, sizeof algorithm);
  found->workspaceSize = algorithm.workspace;
  *count = 1;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t operation, const void *alpha, const void *a,
                              cublasLtMatrixLayout_t of_a, const void *b, cublasLtMatrixLayout_t of_b, const void *beta,
                              const void *c, cublasLtMatrixLayout_t of_c, void *d, cublasLtMatrixLayout_t of_d,
                              const cublasLtMatmulAlgo_t *algo, void *workspace, size_t workspace_bytes, cudaStream_t stream) {
  ENTER(cublasLtMatmul);
  const Operation o = *operation_of(operation);
  const Matrix left = *matrix_of(of_a), right = *matrix_of(of_b), result = *matrix_of(of_d);
  Shape s;
  Algorithm chosen;
  std::memcpy(&chosen, algo, sizeof chosen);
  if (*static_cast<const float *>(alpha) != 1.0f || *static_cast<const float *>(beta) != 0.0f || c != d) {
    return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  const bool fits = handle != nullptr && shape_of(o, left, right, *matrix_of(of_c), result, &s) && chosen.magic == kMagic &&
                    chosen.m == s.m && chosen.n == s.n && chosen.k == s.k && chosen.workspace <= workspace_bytes;
  if (!fits || !aligned(a) || !aligned(b) || !aligned(d) || !aligned(workspace)) return CUBLAS_STATUS_INVALID_VALUE;
  if (!kvsift_mock_on_device(a, left.extent() * 4) || !kvsift_mock_on_device(b, right.extent() * 4) ||
      !kvsift_mock_on_device(d, result.extent() * 4) || !kvsift_mock_on_device(workspace, workspace_bytes)) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  kvsift_mock_submit(stream, [=] {
    std::memset(workspace, 0xff, workspace_bytes);
    multiply(o, left, static_cast<const float *>(a), right, static_cast<const float *>(b), result, static_cast<float *>(d), s);
  });
  return CUBLAS_STATUS_SUCCESS;
}

}  // extern "C"
