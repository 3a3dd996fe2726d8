// Logits of a chunk: four neighbouring threads take two tokens, a warp 16.
#pragma once

#include <type_traits>

#include "cuda/attend/chunk.cuh"
#include "cuda/attend/quad.cuh"

namespace kvsift {
namespace {

constexpr int kHeadTile = 4;
constexpr std::uint32_t kWarpTokens = 16;
static_assert(kWarpTokens * (kAttendThreads / kWarpThreads) == kChunk, "the warps of a block share a chunk out");

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

// Steps whose keys are under way together.
template <class T>
constexpr int kBatchOf = sizeof(T) == 4 ? 4 : 8;
template <>
constexpr int kBatchOf<AnyType> = 1;

// Partial sums of `Tokens` tokens from `first` on, 8 apart, with `Heads` query heads from `queries` on.
template <class T, int Tokens, int Heads>
__device__ inline void dot_lanes(const AttendPlan &plan, const ChunkShared &shared, const float *queries, std::uint32_t first,
                                 float (&lanes)[Tokens][Heads][4]) {
  const Settings &s = plan.head.settings();
  const std::uint8_t *row[Tokens];
#pragma unroll
  for (int t = 0; t < Tokens; ++t) row[t] = shared.keys[first + 8 * t];
  by_elements<kBatchOf<T>>(std::is_same<T, AnyType>::value ? s.dim16 : s.c.head_dim, [&](std::uint32_t c) {
    float key[Tokens][4];
#pragma unroll
    for (int t = 0; t < Tokens; ++t) key_part<T>(row[t], plan.args.cache.keys, c, s.c.head_dim, key[t]);
#pragma unroll
    for (int h = 0; h < Heads; ++h) {
      float x[4];
      load4(queries + h * s.dim16 + c, x);
#pragma unroll
      for (int t = 0; t < Tokens; ++t) {
#pragma unroll
        for (int l = 0; l < 4; ++l) lanes[t][h][l] = __fmaf_rn(x[l], key[t][l], lanes[t][h][l]);
      }
    }
  });
}

__device__ inline void put_logit(const AttendPlan &plan, const ChunkShared &shared, float dot, std::uint32_t i,
                                 std::uint32_t count, float *logits) {
  if (plan.args.cache.keys.scales != nullptr) dot = dot * shared.key_scales[i];
  if (i < count) logits[i] = dot * plan.head.settings().scale;
}

// Tokens `first` and `first` + 8 of the chunk.
template <class T, int Heads>
__device__ inline void dot_tile(const AttendPlan &plan, const ChunkShared &shared, const float *queries, std::uint32_t first,
                                std::uint32_t count, float *logits) {
  const std::uint32_t q = threadIdx.x % 4, own = first + q / 2 * 8;
  float lanes[2][Heads][4] = {};
  dot_lanes<T>(plan, shared, queries, first, lanes);
  if constexpr (Heads == 1) {
    put_logit(plan, shared, sum_of_two(lanes), own, count, logits);
  } else {
    float dot[2];
    sums_of_two(lanes, dot);
#pragma unroll
    for (int i = 0; i < 2; ++i) put_logit(plan, shared, dot[i], own, count, logits + (q % 2 * 2 + static_cast<std::uint32_t>(i)) * kChunk);
  }
}

// logits[head][i] of the query heads from `first_query` of the group on.
template <class T>
__device__ inline void dot_chunk(const AttendPlan &plan, const ChunkShared &shared, const ChunkRows &rows,
                                 std::uint32_t first_query, std::uint32_t heads, std::uint32_t count) {
  const std::uint32_t dim16 = plan.head.settings().dim16, warp = threadIdx.x / kWarpThreads;
  const std::uint32_t first = warp * kWarpTokens + threadIdx.x % kWarpThreads / 4;
  const float *queries = rows.queries + first_query * dim16;
  if (warp * kWarpTokens < count && heads == 1) {
    dot_tile<T, 1>(plan, shared, queries, first, count, rows.logits);
  } else if (warp * kWarpTokens < count) {
    for (std::uint32_t q = 0; q < heads; q += kHeadTile) {
      dot_tile<T, kHeadTile>(plan, shared, queries + q * dim16, first, count, rows.logits + q * kChunk);
    }
  }
  __syncthreads();
}

}  // namespace
}  // namespace kvsift
