// Logits of a chunk: four neighbouring threads take four tokens at a time, a warp 32.
#pragma once

#include "cuda/attend/chunk.cuh"
#include "cuda/attend/quad.cuh"

namespace kvsift {
namespace {

constexpr int kHeadTile = 4;

// Four elements of a row from `c` on; rows of any type and alignment are read one by one.
template <class T>
__device__ inline void key_part(const std::uint8_t *row, const kvsift_view &, std::uint32_t c, std::uint32_t, float (&out)[4]) {
  load4(reinterpret_cast<const T *>(row) + c, out);
}
struct AnyType {};
template <>
__device__ inline void key_part<AnyType>(const std::uint8_t *row, const kvsift_view &view, std::uint32_t c, std::uint32_t dim,
                                         float (&out)[4]) {
  for (std::uint32_t i = 0; i < 4; ++i) out[i] = c + i < dim ? element_at(row, view.type, c + i) : 0.0f;
}

// Tokens `first` + 0, 8, 16 and 24 of the chunk, for `Heads` query heads from `queries` on.
template <class T, int Heads>
__device__ inline void dot_tile(const AttendPlan &plan, const ChunkShared &shared, const float *queries, std::uint32_t first,
                                std::uint32_t count, float *logits) {
  const Settings &s = plan.head.settings();
  const kvsift_view &view = plan.args.cache.keys;
  const std::uint8_t *row[4];
#pragma unroll
  for (int t = 0; t < 4; ++t) row[t] = shared.keys[first + 8 * t];
  float lanes[4][Heads][4] = {};
#pragma unroll 4
  for (std::uint32_t c = threadIdx.x % 4 * 4; c < s.c.head_dim; c += 16) {
    float key[4][4];
#pragma unroll
    for (int t = 0; t < 4; ++t) key_part<T>(row[t], view, c, s.c.head_dim, key[t]);
#pragma unroll
    for (int h = 0; h < Heads; ++h) {
      float x[4];
      load4(queries + h * s.dim16 + c, x);
#pragma unroll
      for (int t = 0; t < 4; ++t) {
#pragma unroll
        for (int l = 0; l < 4; ++l) lanes[t][h][l] = __fmaf_rn(x[l], key[t][l], lanes[t][h][l]);
      }
    }
  }
  float dot[Heads];
  sums_of_four<Heads>(lanes, dot);
  const std::uint32_t own = first + threadIdx.x % 4 * 8;
  if (own >= count) return;
#pragma unroll
  for (int h = 0; h < Heads; ++h) {
    if (view.scales != nullptr) dot[h] = dot[h] * shared.key_scales[own];
    logits[h * kChunk + own] = dot[h] * s.scale;
  }
}

// logits[head][i] of the query heads from `first_query` of the group on.
template <class T>
__device__ inline void dot_chunk(const AttendPlan &plan, const ChunkShared &shared, const ChunkRows &rows,
                                 std::uint32_t first_query, std::uint32_t heads, std::uint32_t count) {
  const std::uint32_t dim16 = plan.head.settings().dim16, warp = threadIdx.x / kWarpThreads;
  const std::uint32_t first = warp * kWarpThreads + threadIdx.x % kWarpThreads / 4;
  const float *queries = rows.queries + first_query * dim16;
  if (warp * kWarpThreads < count && heads == 1) {
    dot_tile<T, 1>(plan, shared, queries, first, count, rows.logits);
  } else if (warp * kWarpThreads < count) {
    for (std::uint32_t q = 0; q < heads; q += kHeadTile) {
      dot_tile<T, kHeadTile>(plan, shared, queries + q * dim16, first, count, rows.logits + q * kChunk);
    }
  }
  __syncthreads();
}

}  // namespace
}  // namespace kvsift
