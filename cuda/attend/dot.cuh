// Logits of a chunk: pairs of threads take a token each.
#pragma once

#include "cuda/attend/chunk.cuh"

namespace kvsift {
namespace {

constexpr int kHeadTile = 4;

// Eight elements of a row from `c` on; rows of any type and alignment are read one by one.
template <class T>
__device__ inline void key_part(const std::uint8_t *row, const kvsift_view &, std::uint32_t c, std::uint32_t, float (&out)[8]) {
  load8(reinterpret_cast<const T *>(row) + c, out);
}
struct AnyType {};
template <>
__device__ inline void key_part<AnyType>(const std::uint8_t *row, const kvsift_view &view, std::uint32_t c, std::uint32_t dim,
                                         float (&out)[8]) {
  for (std::uint32_t i = 0; i < 8; ++i) out[i] = c + i < dim ? element_at(row, view.type, c + i) : 0.0f;
}

// Token `i` of the chunk, this thread's half of its lanes, for four query heads.
template <class T>
__device__ inline void dot_tile(const AttendPlan &plan, const ChunkShared &shared, const float *queries, std::uint32_t i,
                                std::uint32_t count, float *logits) {
  const Settings &s = plan.head.settings();
  const kvsift_view &view = plan.args.cache.keys;
  const std::uint8_t *row = shared.keys[i];
  const std::uint32_t half = threadIdx.x % 2;
  float sum[kHeadTile][8] = {};
#pragma unroll 4
  for (std::uint32_t c = half * 8; c < s.c.head_dim; c += 16) {
    float key[8];
    key_part<T>(row, view, c, s.c.head_dim, key);
#pragma unroll
    for (int q = 0; q < kHeadTile; ++q) {
      float x[8];
      load8(queries + q * s.dim16 + c, x);
#pragma unroll
      for (int l = 0; l < 8; ++l) sum[q][l] = __fmaf_rn(x[l], key[l], sum[q][l]);
    }
  }
#pragma unroll
  for (int q = 0; q < kHeadTile; ++q) {
    float dot = tree16_of_pair(sum[q], kAllLanes);
    if (view.scales != nullptr) dot = dot * shared.key_scales[i];
    if (half == 0 && i < count) logits[q * kChunk + i] = dot * s.scale;
  }
}

// logits[head][i] of the query heads from `first_query` of the group on.
template <class T>
__device__ inline void dot_chunk(const AttendPlan &plan, const ChunkShared &shared, const ChunkRows &rows,
                                 std::uint32_t first_query, std::uint32_t heads, std::uint32_t count) {
  const std::uint32_t dim16 = plan.head.settings().dim16;
  for (std::uint32_t q = 0; q < heads; q += kHeadTile) {
    const float *queries = rows.queries + (first_query + q) * dim16;
    for (std::uint32_t i = threadIdx.x / 2; i < blocks_of(count, kChunk / 2) * (kChunk / 2); i += kChunk / 2) {
      dot_tile<T>(plan, shared, queries, i, count, rows.logits + q * kChunk);
    }
  }
  __syncthreads();
}

}  // namespace
}  // namespace kvsift
