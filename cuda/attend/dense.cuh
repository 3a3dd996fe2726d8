// Attention over everything where the cache is long: a pair of warps takes a chunk of its own. Each warp has half of the
// tokens' logits, then half of the values' columns; rows come through a ring of its own in shared memory while it computes.
#pragma once

#include "cuda/attend/dense_feed.cuh"
#include "cuda/attend/quad.cuh"
#include "cuda/core/block.cuh"

namespace kvsift {
namespace {

// One pair's chunk: tokens [first, first + count) of all.
template <int Tiles>
struct DenseChunk {
  const AttendPlan &plan;
  const float *queries;         // [heads, to a multiple of four][dim16]
  float4 *logits;               // [Tiles][kChunk]: of four query heads each; soften_pair makes them exp(logit - max)
  DenseRing ring;
  std::uint32_t slot, first, count, half;
  float max[Tiles][4], sum[Tiles][4];

  __device__ std::uint32_t heads() const { return plan.head.settings().group; }
  __device__ bool whole() const { return count == kChunk; }
};

// Logits of the 16 tokens from `from` on: quad k of the warp takes rows k and k + 8.
template <class T, int Tiles>
__device__ inline void dot_rows(const DenseChunk<Tiles> &chunk, const DenseFeed &keys, std::uint32_t from, std::uint32_t slot) {
  const Settings &s = chunk.plan.head.settings();
  const std::uint32_t lane = lane_of_warp(), k = lane / 4, q = lane % 4;
  const auto *low = reinterpret_cast<const T *>(chunk.ring.row(slot, k, keys.pitch));
  const auto *high = reinterpret_cast<const T *>(chunk.ring.row(slot, k + 8, keys.pitch));
#pragma unroll
  for (int tile = 0; tile < Tiles; ++tile) {
    const float *queries = chunk.queries + tile * 4 * s.dim16;
    float lanes[2][4][4] = {};
    by_elements<4>(s.c.head_dim, [&](std::uint32_t c) {
      float a[4], b[4];
      load4(low + c, a);
      load4(high + c, b);
#pragma unroll
      for (int h = 0; h < 4; ++h) {
        float x[4];
        load4(queries + h * s.dim16 + c, x);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          lanes[0][h][i] = __fmaf_rn(x[i], a[i], lanes[0][h][i]);
          lanes[1][h][i] = __fmaf_rn(x[i], b[i], lanes[1][h][i]);
        }
      }
    });
    float dot[2];
    sums_of_two(lanes, dot);
    const std::uint32_t r = k + q / 2 * 8;
    if (sizeof(T) == 1) {
      const float scale = chunk.ring.scale(slot, r);
      dot[0] = dot[0] * scale, dot[1] = dot[1] * scale;
    }
    auto *to = reinterpret_cast<float2 *>(chunk.logits + tile * kChunk + from + r) + q % 2;
    *to = make_float2(dot[0] * s.scale, dot[1] * s.scale);
  }
}

__device__ inline float &part(float4 &v, int i) { return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w; }

// The largest logit of each query head; both warps look at all.
template <bool kWhole, int Tiles>
__device__ inline void find_maxima(DenseChunk<Tiles> *chunk) {
#pragma unroll
  for (int tile = 0; tile < Tiles; ++tile) {
    float(&max)[4] = chunk->max[tile];
#pragma unroll
    for (int h = 0; h < 4; ++h) max[h] = -infinity();
#pragma unroll
    for (std::uint32_t n = 0; n < kChunk / kWarpThreads; ++n) {
      const std::uint32_t i = n * kWarpThreads + lane_of_warp();
      if (!kWhole && i >= chunk->count) continue;
      float4 x = chunk->logits[tile * kChunk + i];
#pragma unroll
      for (int h = 0; h < 4; ++h) max[h] = part(x, h) > max[h] ? part(x, h) : max[h];
    }
#pragma unroll
    for (unsigned step = 16; step > 0; step /= 2) {
#pragma unroll
      for (int h = 0; h < 4; ++h) {
        const float other = __shfl_xor_sync(kAllLanes, max[h], step);
        max[h] = other > max[h] ? other : max[h];
      }
    }
  }
}

// exp(logit - max) of the warp's half of the tokens.
template <bool kWhole, int Tiles>
__device__ inline void find_weights(const DenseChunk<Tiles> &chunk) {
#pragma unroll
  for (int tile = 0; tile < Tiles; ++tile) {
#pragma unroll 2
    for (std::uint32_t n = 0; n < kChunk / kWarpThreads / 2; ++n) {
      const std::uint32_t i = chunk.half * (kChunk / 2) + n * kWarpThreads + lane_of_warp();
      if (!kWhole && i >= chunk.count) continue;
      float4 x = chunk.logits[tile * kChunk + i];
#pragma unroll
      for (int h = 0; h < 4; ++h) part(x, h) = chunk.max[tile][h] > -infinity() ? exp1(part(x, h) - chunk.max[tile][h]) : 0.0f;
      chunk.logits[tile * kChunk + i] = x;
    }
  }
}

// Lane i of a sum adds elements i, i + 16 ...; both halves of the warp, and both warps, add the same.
template <bool kWhole, int Tiles>
__device__ inline void find_sums(DenseChunk<Tiles> *chunk) {
#pragma unroll
  for (int tile = 0; tile < Tiles; ++tile) {
    float(&sum)[4] = chunk->sum[tile];
#pragma unroll
    for (int h = 0; h < 4; ++h) sum[h] = 0.0f;
#pragma unroll 4
    for (std::uint32_t n = 0; n < kChunk / 16; ++n) {
      const std::uint32_t i = n * 16 + lane_of_warp() % 16;
      if (!kWhole && i >= chunk->count) continue;
      float4 x = chunk->logits[tile * kChunk + i];
#pragma unroll
      for (int h = 0; h < 4; ++h) sum[h] = sum[h] + part(x, h);
    }
#pragma unroll
    for (unsigned step = 8; step > 0; step /= 2) {
#pragma unroll
      for (int h = 0; h < 4; ++h) sum[h] = sum[h] + __shfl_xor_sync(kAllLanes, sum[h], step);
    }
  }
}

// Weighted values of the rows in slot `slot`: a lane has two columns of all query heads.
template <class T, int Tiles>
__device__ inline void add_values(const DenseChunk<Tiles> &chunk, const DenseFeed &values, std::uint32_t from, std::uint32_t slot,
                                  std::uint32_t column, float (&acc)[Tiles][4][2]) {
  const std::uint32_t here = chunk.count - from < values.rows ? chunk.count - from : values.rows;
  const auto add = [&](std::uint32_t r) {
    float value[2];
    load2(reinterpret_cast<const T *>(chunk.ring.row(slot, r, values.pitch)) + column, value);
#pragma unroll
    for (int tile = 0; tile < Tiles; ++tile) {
      float4 weight = chunk.logits[tile * kChunk + from + r];
#pragma unroll
      for (int h = 0; h < 4; ++h) {
        float w = part(weight, h);
        if (sizeof(T) == 1) w = w * chunk.ring.scale(slot, r);
        acc[tile][h][0] = __fmaf_rn(w, value[0], acc[tile][h][0]);
        acc[tile][h][1] = __fmaf_rn(w, value[1], acc[tile][h][1]);
      }
    }
  };
  if (here == kDenseValueRows) {
#pragma unroll 8
    for (std::uint32_t r = 0; r < kDenseValueRows; ++r) add(r);
  } else {
    for (std::uint32_t r = 0; r < here; ++r) add(r);
  }
}

}  // namespace
}  // namespace kvsift
