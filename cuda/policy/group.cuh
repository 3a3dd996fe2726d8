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
  std::uint32_t stride, group, count;

  __device__ float *row(std::uint32_t g) const { return scores + g * stride; }
};

// use(i) for the thread's places below `count`. The turns are counted, which lets the compiler do some of them together.
template <class Use>
__device__ inline void each_place(std::uint32_t count, Use use) {
  const std::uint32_t turns = (count + blockDim.x - 1) / blockDim.x;
#pragma unroll 4
  for (std::uint32_t n = 0; n < turns; ++n) {
    const std::uint32_t i = n * blockDim.x + threadIdx.x;
    if (i < count) use(i);
  }
}

__device__ inline float larger_of_warp(float x) {
#pragma unroll
  for (unsigned step = 16; step > 0; step /= 2) {
    const float other = __shfl_xor_sync(kAllLanes, x, step);
    x = other > x ? other : x;
  }
  return x;
}

// The largest score of each row.
__device__ inline void find_maxima(const GroupRows &rows, float *max) {
  __shared__ float of_warp[KVSIFT_MAX_GROUP][kWarpThreads];
  const std::uint32_t warps = blockDim.x / kWarpThreads, warp = threadIdx.x / kWarpThreads, lane = threadIdx.x % kWarpThreads;
  for (std::uint32_t g = 0; g < rows.group; ++g) {
    const float *row = rows.row(g);
    float x = -infinity();
    each_place(rows.count, [&](std::uint32_t i) { x = row[i] > x ? row[i] : x; });
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

// Lane `lane` of a row's sum: elements lane, lane + 16 ... in their order.
__device__ inline float lane_sum(const float *row, std::uint32_t lane, std::uint32_t count) {
  const std::uint32_t whole = count / 16;
  float sum = 0.0f;
#pragma unroll 16
  for (std::uint32_t n = 0; n < whole; ++n) sum = sum + row[n * 16 + lane];
  if (whole * 16 + lane < count) sum = sum + row[whole * 16 + lane];
  return sum;
}

// exp(x - max) in place, and one over each row's sum.
__device__ inline void soften_group(const GroupRows &rows, float *inverse) {
  __shared__ float max[KVSIFT_MAX_GROUP], lanes[KVSIFT_MAX_GROUP][16];
  find_maxima(rows, max);
  for (std::uint32_t g = 0; g < rows.group; ++g) {
    float *row = rows.row(g);
    const float most = max[g];
    each_place(rows.count, [&](std::uint32_t i) { row[i] = exp1(row[i] - most); });
  }
  __syncthreads();
  if (threadIdx.x < rows.group * 16) {
    lanes[threadIdx.x / 16][threadIdx.x % 16] = lane_sum(rows.row(threadIdx.x / 16), threadIdx.x % 16, rows.count);
  }
  __syncthreads();
  if (threadIdx.x < rows.group) inverse[threadIdx.x] = 1.0f / tree16(lanes[threadIdx.x]);
  __syncthreads();
}

// One row of shares from those of the query heads, in row 0.
template <bool kSoften, bool kMean>
__device__ inline void join_rows(const GroupRows &rows, const float *inverse) {
  const float share = 1.0f / static_cast<float>(rows.group);
  each_place(rows.count, [&](std::uint32_t i) {
    float all = 0.0f;
#pragma unroll 4
    for (std::uint32_t g = 0; g < rows.group; ++g) {
      const float raw = rows.row(g)[i], x = kSoften ? __fmaf_rn(inverse[g], raw, 0.0f * raw) : raw;
      if (g == 0) {
        all = x;
      } else if (kMean) {
        all = all + x;
      } else {
        all = x > all ? x : all;
      }
    }
    rows.scores[i] = kMean ? __fmaf_rn(share, all, 0.0f * all) : all;
  });
  __syncthreads();
}

__device__ inline void reduce_group(const Settings &s, ScoreKind kind, const GroupRows &rows) {
  __shared__ float inverse[KVSIFT_MAX_GROUP];
  const bool mean = s.c.grouping == KVSIFT_GROUP_MEAN;
  if (kind == ScoreKind::kLog) {
    soften_group(rows, inverse);
    mean ? join_rows<true, true>(rows, inverse) : join_rows<true, false>(rows, inverse);
  } else {
    mean ? join_rows<false, true>(rows, inverse) : join_rows<false, false>(rows, inverse);
  }
}

}  // namespace
}  // namespace kvsift
