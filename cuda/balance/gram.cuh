// Tiles of a kernel matrix: K(i, j) = exp(key_scale * <k_i - m, k_j - m>) * (<v_i, v_j> + value_offset), coordinates added
// by fma in order. A block of kGramThreads threads works on a tile.
#pragma once

#include "balance/balance_kernels.h"
#include "cuda/balance/compress.h"
#include "cuda/core/device.cuh"

namespace kvsift {
namespace {

constexpr std::uint32_t kDepth = 16;  // coordinates in shared memory at a time
constexpr std::uint32_t kSide = 16;   // threads to a side of the tile
constexpr std::uint32_t kEntries = kGramTile / kSide;

struct Operands {
  alignas(16) float row[kDepth][kGramTile], column[kDepth][kGramTile];
};

// Tile `number` of those on and above the diagonal, by columns of tiles.
struct TilePlace {
  std::uint32_t j, i;  // of its first row and column; i >= j
};
__device__ inline TilePlace tile_place(std::uint32_t number) {
  std::uint32_t column = 0;
  while ((column + 1) * (column + 2) / 2 <= number) ++column;
  return TilePlace{(number - column * (column + 1) / 2) * kGramTile, column * kGramTile};
}

__device__ inline float cut_off(float x) {
  x = x < kMostCoordinate ? x : kMostCoordinate;
  return x > -kMostCoordinate ? x : -kMostCoordinate;
}

// The thread's inner products; load(c) brings coordinates [c, c + kDepth) of the tile's tokens into `operands`.
template <class Load>
__device__ inline void multiply(std::uint32_t dim, const Operands &operands, Load load, float (&sum)[kEntries][kEntries]) {
  const std::uint32_t x = threadIdx.x % kSide, y = threadIdx.x / kSide;
#pragma unroll
  for (std::uint32_t r = 0; r < kEntries; ++r) {
#pragma unroll
    for (std::uint32_t k = 0; k < kEntries; ++k) sum[r][k] = 0.0f;
  }
  for (std::uint32_t c = 0; c < dim; c += kDepth) {
    __syncthreads();
    load(c);
    __syncthreads();
#pragma unroll
    for (std::uint32_t d = 0; d < kDepth; ++d) {
      const float4 a = *reinterpret_cast<const float4 *>(&operands.row[d][kEntries * y]);
      const float4 b = *reinterpret_cast<const float4 *>(&operands.column[d][kEntries * x]);
      const float rows[4] = {a.x, a.y, a.z, a.w}, columns[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
      for (std::uint32_t r = 0; r < kEntries; ++r) {
#pragma unroll
        for (std::uint32_t k = 0; k < kEntries; ++k) sum[r][k] = __fmaf_rn(rows[r], columns[k], sum[r][k]);
      }
    }
  }
}

// The thread's entries of the matrix, from both products.
__device__ inline void put_entries(const TilePlace &tile, const float (&keys)[kEntries][kEntries],
                                   const float (&values)[kEntries][kEntries], float key_scale, float value_offset, float *matrix,
                                   std::uint32_t order) {
  const std::uint32_t x = threadIdx.x % kSide, y = threadIdx.x / kSide;
  float *out = matrix + std::uint64_t{tile.j + kEntries * y} * order + tile.i + kEntries * x;
#pragma unroll
  for (std::uint32_t r = 0; r < kEntries; ++r, out += order) {
    float k[kEntries];
#pragma unroll
    for (std::uint32_t n = 0; n < kEntries; ++n) {
      const float exponent = __fmaf_rn(key_scale, keys[r][n], -0.0f);
      const float most = exponent < kMostExponent ? exponent : kMostExponent;
      k[n] = exp1(most) * __fmaf_rn(1.0f, values[r][n], value_offset);
    }
    *reinterpret_cast<float4 *>(out) = make_float4(k[0], k[1], k[2], k[3]);
  }
}

}  // namespace
}  // namespace kvsift
