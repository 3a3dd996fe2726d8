// Scores of a group's query heads into those of their KV head, as reduce_group of policy/group.h. Worked on by one block.
#pragma once

#include "cuda/core/block.cuh"
#include "cuda/policy/image.cuh"
#include "methods/method.h"

namespace kvsift {
namespace {

// A row for each query head, in scratch or in shared memory.
struct GroupRows {
  float *scores;
  std::uint64_t stride;
  std::uint32_t group, count;

  __device__ float *row(std::uint32_t g) const { return scores + g * stride; }
};

// The largest score of each row.
__device__ inline void find_maxima(const GroupRows &rows, float *max) {
  __shared__ float of_warp[KVSIFT_MAX_GROUP][kWarpThreads];
  const std::uint32_t warps = blockDim.x / kWarpThreads, warp = threadIdx.x / kWarpThreads, lane = threadIdx.x % kWarpThreads;
  const auto larger_of_warp = [](float x) {
#pragma unroll
    for (unsigned step = 16; step > 0; step /= 2) {
      const float other = __shfl_xor_sync(kAllLanes, x, step);
      x = other > x ? other : x;
    }
    return x;
  };
  for (std::uint32_t g = 0; g < rows.group; ++g) {
    const float *row = rows.row(g);
    float x = -infinity();
    for (std::uint32_t i = threadIdx.x; i < rows.count; i += blockDim.x) x = row[i] > x ? row[i] : x;
    x = larger_of_warp(x);
    if (lane == 0) of_warp[g][warp] = x;
  }
  __syncthreads();
  for (std::uint32_t g = warp; g < rows.group; g += warps) {
    const float x = larger_of_warp(lane < warps ? of_warp[g][lane] : -infinity());
    if (lane == 0) max[g] = x;
  }
  __syncthreads();
}

// exp(x - max) in place, and one over each row's sum, in which lane i adds elements i, i + 16 ...
__device__ inline void soften_group(const GroupRows &rows, float *inverse) {
  __shared__ float max[KVSIFT_MAX_GROUP], lanes[KVSIFT_MAX_GROUP][16];
  find_maxima(rows, max);
  for (std::uint32_t g = 0; g < rows.group; ++g) {
    float *row = rows.row(g);
    for (std::uint32_t i = threadIdx.x; i < rows.count; i += blockDim.x) row[i] = exp1(row[i] - max[g]);
  }
  __syncthreads();
  if (threadIdx.x < rows.group * 16) {
    const float *row = rows.row(threadIdx.x / 16);
    float sum = 0.0f;
#pragma unroll 16
    for (std::uint32_t i = threadIdx.x % 16; i < rows.count; i += 16) sum = sum + row[i];
    lanes[threadIdx.x / 16][threadIdx.x % 16] = sum;
  }
  __syncthreads();
  if (threadIdx.x < rows.group) inverse[threadIdx.x] = 1.0f / tree16(lanes[threadIdx.x]);
  __syncthreads();
}

// One row of shares from those of the query heads, in row 0.
__device__ inline void reduce_group(const Settings &s, ScoreKind kind, const GroupRows &rows) {
  __shared__ float inverse[KVSIFT_MAX_GROUP];
  const bool soften = kind == ScoreKind::kLog;
  if (soften) soften_group(rows, inverse);
  const float share = 1.0f / static_cast<float>(s.group);
  for (std::uint32_t i = threadIdx.x; i < rows.count; i += blockDim.x) {
    float all = 0.0f;
    for (std::uint32_t g = 0; g < s.group; ++g) {
      const float raw = rows.row(g)[i];
      const float x = soften ? __fmaf_rn(inverse[g], raw, 0.0f * raw) : raw;
      if (g == 0) {
        all = x;
      } else if (s.c.grouping == KVSIFT_GROUP_MEAN) {
        all = all + x;
      } else {
        all = x > all ? x : all;
      }
    }
    rows.scores[i] = s.c.grouping == KVSIFT_GROUP_MEAN ? __fmaf_rn(share, all, 0.0f * all) : all;
  }
  __syncthreads();
}

}  // namespace
}  // namespace kvsift
