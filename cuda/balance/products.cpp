#include "cuda/balance/products.h"

namespace kvsift {
namespace {

// cuBLASLt's matrices go by columns: a row of X is a column there, and the result is its own transpose.
kvsift_status make_layout(const Cublas &c, cublasLtMatrixLayout_t *layout, std::uint32_t rows, std::uint32_t columns,
                          kvsift_error *error) {
  const std::int64_t stride = std::int64_t{rows} * columns;
  const cublasStatus_t made = c.layout_create(layout, CUDA_R_32F, rows, columns, rows);
  if (kvsift_status s = check(c, made, "cublasLtMatrixLayoutCreate", error)) return s;
  const cublasStatus_t set = c.layout_set(*layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride, sizeof stride);
  return check(c, set, "cublasLtMatrixLayoutSetAttribute", error);
}

kvsift_status set_batch(const Products &p, std::uint32_t batch, kvsift_error *error) {
  const auto count = static_cast<std::int32_t>(batch);
  for (cublasLtMatrixLayout_t layout : {p.operand, p.result}) {
    const cublasStatus_t set = p.cublas.layout_set(layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof count);
    if (kvsift_status s = check(p.cublas, set, "cublasLtMatrixLayoutSetAttribute", error)) return s;
  }
  return KVSIFT_OK;
}

kvsift_status make_operation(const Cublas &c, cublasLtMatmulDesc_t *operation, kvsift_error *error) {
  const cublasStatus_t made = c.operation_create(operation, CUBLAS_COMPUTE_32F_FAST_TF32, CUDA_R_32F);
  if (kvsift_status s = check(c, made, "cublasLtMatmulDescCreate", error)) return s;
  const std::int32_t turned = CUBLAS_OP_T;
  const cublasStatus_t set = c.operation_set(*operation, CUBLASLT_MATMUL_DESC_TRANSA, &turned, sizeof turned);
  return check(c, set, "cublasLtMatmulDescSetAttribute", error);
}

kvsift_status choose(Products *p, cublasLtMatmulPreference_t preference, kvsift_error *error) {
  const Cublas &c = p->cublas;
  const std::uint64_t most = kProductWorkspace;
  const cublasStatus_t set = c.preference_set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &most, sizeof most);
  if (kvsift_status s = check(c, set, "cublasLtMatmulPreferenceSetAttribute", error)) return s;
  cublasLtMatmulHeuristicResult_t found{};
  int count = 0;
  const cublasStatus_t result = c.choose(c.handle, p->operation, p->operand, p->operand, p->result, p->result, preference, 1,
                                         &found, &count);
  if (kvsift_status s = check(c, result, "cublasLtMatmulAlgoGetHeuristic", error)) return s;
  if (count < 1 || found.state != CUBLAS_STATUS_SUCCESS) {
    return fail(error, KVSIFT_UNSUPPORTED, "cublasLtMatmulAlgoGetHeuristic knows no way to multiply matrices of ", p->order,
                " x ", p->depth);
  }
  p->algorithm = found.algo;
  return KVSIFT_OK;
}

kvsift_status choose(Products *p, kvsift_error *error) {
  cublasLtMatmulPreference_t preference = nullptr;
  const cublasStatus_t made = p->cublas.preference_create(&preference);
  if (kvsift_status s = check(p->cublas, made, "cublasLtMatmulPreferenceCreate", error)) return s;
  const kvsift_status status = choose(p, preference, error);
  p->cublas.preference_destroy(preference);
  return status;
}

}  // namespace

kvsift_status make_products(Products *p, std::uint32_t order, std::uint32_t depth, std::uint32_t most, kvsift_error *error) {
  *p = Products{};
  if (kvsift_status s = open_cublas(&p->cublas, error)) return s;
  p->order = order;
  p->depth = depth;
  kvsift_status status = make_operation(p->cublas, &p->operation, error);
  if (status == KVSIFT_OK) status = make_layout(p->cublas, &p->operand, depth, order, error);
  if (status == KVSIFT_OK) status = make_layout(p->cublas, &p->result, order, order, error);
  if (status == KVSIFT_OK) status = set_batch(*p, most, error);
  if (status == KVSIFT_OK) status = choose(p, error);
  if (status != KVSIFT_OK) release_products(p);
  return status;
}

void release_products(Products *p) {
  if (p->result != nullptr) p->cublas.layout_destroy(p->result);
  if (p->operand != nullptr) p->cublas.layout_destroy(p->operand);
  if (p->operation != nullptr) p->cublas.operation_destroy(p->operation);
  close_cublas(&p->cublas);
  *p = Products{};
}

kvsift_status multiply(const Products &p, const float *x, float *out, char *workspace, std::uint32_t batch, void *stream,
                       kvsift_error *error) {
  if (kvsift_status s = set_batch(p, batch, error)) return s;
  const float one = 1.0f, zero = 0.0f;
  const cublasStatus_t result =
      p.cublas.multiply(p.cublas.handle, p.operation, &one, x, p.operand, x, p.operand, &zero, out, p.result, out, p.result,
                        &p.algorithm, workspace, kProductWorkspace, static_cast<cudaStream_t>(stream));
  return check(p.cublas, result, "cublasLtMatmul", error);
}

}  // namespace kvsift
