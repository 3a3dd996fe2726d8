// Products of many matrices with their own transposes by cuBLASLt: out = X X^T for each X of a batch, float32 in and out,
// multiplied on tensor cores as TF32 and added in float32.
//
// TF32 and not float16: it has float16's eleven significant bits without its narrow range, so that one form serves all types
// of cache; and what is written, order x order, outweighs what is read, order x depth.
#pragma once

#include "cuda/core/cublas.h"

namespace kvsift {

constexpr std::uint64_t kProductWorkspace = 4ull << 20;  // bytes
constexpr std::uint64_t kProductAlign = 256;             // of operands, results and workspace

struct Products {
  Cublas cublas;
  cublasLtMatmulDesc_t operation;
  cublasLtMatrixLayout_t operand, result;
  cublasLtMatmulAlgo_t algorithm;
  std::uint32_t order, depth;  // of X; 0: not made
};

// Opens cuBLASLt and has it choose for batches of up to `most` matrices: allocates. On success release_products is owed.
kvsift_status make_products(Products *products, std::uint32_t order, std::uint32_t depth, std::uint32_t most, kvsift_error *error);
void release_products(Products *products);  // also what was never made

// x: [batch][order][depth], out: [batch][order][order], on the device like the workspace.
kvsift_status multiply(const Products &products, const float *x, float *out, char *workspace, std::uint32_t batch, void *stream,
                       kvsift_error *error);

}  // namespace kvsift
