// Logits of a chunk: four neighbouring threads take two tokens, a warp 16.
#pragma once

#include <type_traits>

#include "cuda/attend/chunk.cuh"
#include "cuda/attend/element.cuh"
#include "cuda/attend/quad.cuh"
#include "cuda/core/copy.cuh"

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
template <>
__device__ inline void key_part<AnyType>(const std::uint8_t *row, const kvsift_view &view, std::uint32_t c, std::uint32_t dim,
                                         float (&out)[4]) {
  for (std::uint32_t i = 0; i < 4; ++i) out[i] = c + i < dim ? element_at(row, view.type, c + i) : 0.0f;
}

// Keys on their way into shared memory, before the values whose turn comes later.
template <class T>
__device__ inline void fetch_keys(const AttendPlan &plan, const ChunkRows &rows, std::uint32_t count) {
  if constexpr (!std::is_same<T, AnyType>::value) {
    const std::uint32_t pieces = plan.head.settings().c.head_dim * static_cast<std::uint32_t>(sizeof(T)) / 16;
    const std::uint32_t each = kAttendThreads / pieces, at = threadIdx.x % pieces * 16;
    if (threadIdx.x < each * pieces && rows.key_pitch != 0) {
#pragma unroll 4
      for (std::uint32_t row = threadIdx.x / pieces; row < count; row += each) {
        copy_async(rows.keys + row * rows.key_pitch + at, rows.shared->keys[row] + at);
      }
    }
  }
  end_copies();
}

template <class T>
__device__ inline const std::uint8_t *key_row(const ChunkRows &rows, std::uint32_t i) {
  const bool staged = !std::is_same<T, AnyType>::value && rows.key_pitch != 0;
  return staged ? rows.keys + i * rows.key_pitch : rows.shared->keys[i];
}

// Steps whose keys are under way together.
template <class T>
constexpr int kBatchOf = sizeof(T) == 4 ? 4 : 8;
template <>
constexpr int kBatchOf<AnyType> = 1;

// Partial sums of `Tokens` tokens from `first` on, 8 apart, with `Heads` query heads from `queries` on.
template <class T, int Tokens, int Heads>
__device__ inline void dot_lanes(const AttendPlan &plan, const ChunkRows &rows, const float *queries, std::uint32_t first,
                                 float (&lanes)[Tokens][Heads][4]) {
  const Settings &s = plan.head.settings();
  const std::uint8_t *row[Tokens];
#pragma unroll
  for (int t = 0; t < Tokens; ++t) row[t] = key_row<T>(rows, first + 8 * t);
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
__device__ inline void dot_tile(const AttendPlan &plan, const ChunkRows &rows, const float *queries, std::uint32_t first,
                                std::uint32_t count, float *logits) {
  const ChunkShared &shared = *rows.shared;
  const std::uint32_t q = threadIdx.x % 4, own = first + q / 2 * 8;
  float lanes[2][Heads][4] = {};
  dot_lanes<T>(plan, rows, queries, first, lanes);
  if constexpr (Heads == 1) {
    const float dot = sum_of_two(lanes);  // in both lanes of a pair
    if (q % 2 == 0) put_logit(plan, shared, dot, own, count, logits);
  } else {
    float dot[2];
    sums_of_two(lanes, dot);
#pragma unroll
    for (int i = 0; i < 2; ++i) put_logit(plan, shared, dot[i], own, count, logits + (q % 2 * 2 + static_cast<std::uint32_t>(i)) * kChunk);
  }
}

// logits[head][i] of the query heads from `first_query` of the group on.
template <class T>
__device__ inline void dot_chunk(const AttendPlan &plan, const ChunkRows &rows, std::uint32_t first_query, std::uint32_t heads,
                                 std::uint32_t count) {
  const std::uint32_t dim16 = plan.head.settings().dim16, warp = threadIdx.x / kWarpThreads;
  const std::uint32_t first = warp * kWarpTokens + threadIdx.x % kWarpThreads / 4;
  const float *queries = rows.queries + first_query * dim16;
  if (warp * kWarpTokens < count && heads == 1) {
    dot_tile<T, 1>(plan, rows, queries, first, count, rows.logits);
  } else if (warp * kWarpTokens < count) {
    for (std::uint32_t q = 0; q < heads; q += kHeadTile) {
      dot_tile<T, kHeadTile>(plan, rows, queries + q * dim16, first, count, rows.logits + q * kChunk);
    }
  }
  __syncthreads();
}

}  // namespace
}  // namespace kvsift
