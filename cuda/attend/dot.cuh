// Logits of a chunk: pairs of threads take a token each, or two at once.
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

// Tokens tid / 2 and, with N = 2, tid / 2 + 128 of the chunk, for four query heads.
template <class T, int N>
__device__ inline void dot_tile(const AttendPlan &plan, const ChunkShared &shared, const float *queries, std::uint32_t count,
                                float *logits) {
  const Settings &s = plan.head.settings();
  const kvsift_view &view = plan.args.cache.keys;
  const std::uint32_t half = threadIdx.x % 2, first = threadIdx.x / 2;
  float sum[N][kHeadTile][8] = {};
#pragma unroll 1
  for (std::uint32_t c = half * 8; c < s.c.head_dim; c += 16) {
    float key[N][8];
#pragma unroll
    for (int n = 0; n < N; ++n) key_part<T>(shared.keys[first + n * (kChunk / 2)], view, c, s.c.head_dim, key[n]);
#pragma unroll
    for (int q = 0; q < kHeadTile; ++q) {
      float x[8];
      load8(queries + q * s.dim16 + c, x);
#pragma unroll
      for (int n = 0; n < N; ++n) {
#pragma unroll
        for (int i = 0; i < 8; ++i) sum[n][q][i] = __fmaf_rn(x[i], key[n][i], sum[n][q][i]);
      }
    }
  }
#pragma unroll
  for (int n = 0; n < N; ++n) {
    const std::uint32_t i = first + n * (kChunk / 2);
#pragma unroll
    for (int q = 0; q < kHeadTile; ++q) {
      float dot = tree16_of_pair(sum[n][q], kAllLanes);
      if (view.scales != nullptr) dot = dot * shared.key_scales[i];
      if (half == 0 && i < count) logits[q * kChunk + i] = dot * s.scale;
    }
  }
}

// logits[head][i] of the query heads from `first_query` of the group on.
template <class T>
__device__ inline void dot_chunk(const AttendPlan &plan, const ChunkShared &shared, const ChunkRows &rows,
                                 std::uint32_t first_query, std::uint32_t heads, std::uint32_t count) {
  const std::uint32_t dim16 = plan.head.settings().dim16;
  for (std::uint32_t q = 0; q < heads; q += kHeadTile) {
    const float *queries = rows.queries + (first_query + q) * dim16;
    if (count > kChunk / 2) {
      dot_tile<T, 2>(plan, shared, queries, count, rows.logits + q * kChunk);
    } else {
      dot_tile<T, 1>(plan, shared, queries, count, rows.logits + q * kChunk);
    }
  }
  __syncthreads();
}

}  // namespace
}  // namespace kvsift
