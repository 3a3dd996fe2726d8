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

// use(i) for the thread's fours of places below `count`, then one(i) for the places that are left.
template <class Use, class One>
__device__ inline void each_four(std::uint32_t count, Use use, One one) {
  const std::uint32_t fours = count / 4, turns = (fours + blockDim.x - 1) / blockDim.x, left = count % 4;
#pragma unroll 2
  for (std::uint32_t n = 0; n < turns; ++n) {
    const std::uint32_t i = n * blockDim.x + threadIdx.x;
    if (i < fours) use(4 * i);
  }
  if (threadIdx.x < left) one(4 * fours + threadIdx.x);
}

__device__ inline float4 four_at(const float *row) { return *reinterpret_cast<const float4 *>(row); }
__device__ inline void put_four(float *row, float4 v) { *reinterpret_cast<float4 *>(row) = v; }
__device__ inline float larger(float a, float b) { return a > b ? a : b; }

// The largest score of each row.
__device__ inline void find_maxima(const GroupRows &rows, float *max) {
  __shared__ float of_warp[KVSIFT_MAX_GROUP][kWarpThreads];
  const std::uint32_t warps = blockDim.x / kWarpThreads, warp = threadIdx.x / kWarpThreads, lane = threadIdx.x % kWarpThreads;
#pragma unroll 4
  for (std::uint32_t g = 0; g < rows.group; ++g) {
    const float *row = rows.row(g);
    float x = -infinity();
    each_four(
        rows.count,
        [&](std::uint32_t i) {
          const float4 v = four_at(row + i);
          x = larger(larger(v.x, v.y), larger(larger(v.z, v.w), x));
        },
        [&](std::uint32_t i) { x = larger(row[i], x); });
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

// exp(x - max) of `from` into `rows`, and one over each row's sum.
__device__ inline void soften_group(const GroupRows &from, const GroupRows &rows, float *inverse) {
  __shared__ float max[KVSIFT_MAX_GROUP], lanes[KVSIFT_MAX_GROUP][16];
  find_maxima(from, max);
#pragma unroll 1
  for (std::uint32_t g = 0; g < rows.group; ++g) {
    const float *in = from.row(g);
    float *out = rows.row(g);
    const float most = max[g];
    each_four(
        rows.count,
        [&](std::uint32_t i) {
          const float4 v = four_at(in + i);
          put_four(out + i, make_float4(exp1(v.x - most), exp1(v.y - most), exp1(v.z - most), exp1(v.w - most)));
        },
        [&](std::uint32_t i) { out[i] = exp1(in[i] - most); });
  }
  __syncthreads();
  if (threadIdx.x < rows.group * 16) {
    lanes[threadIdx.x / 16][threadIdx.x % 16] = lane_sum(rows.row(threadIdx.x / 16), threadIdx.x % 16, rows.count);
  }
  __syncthreads();
  if (threadIdx.x < rows.group) inverse[threadIdx.x] = 1.0f / tree16(lanes[threadIdx.x]);
  __syncthreads();
}

// The query heads' scores at one place as one.
template <bool kSoften, bool kMean>
struct Joiner {
  const GroupRows &rows;
  const float *inverse;
  float share;

  __device__ void add(std::uint32_t g, float raw, float *all) const {
    const float x = kSoften ? __fmaf_rn(inverse[g], raw, 0.0f * raw) : raw;
    if (g == 0) {
      *all = x;
    } else {
      *all = kMean ? *all + x : larger(x, *all);
    }
  }
  __device__ float end(float all) const { return kMean ? __fmaf_rn(share, all, 0.0f * all) : all; }
};

// One row of shares from those of the query heads, into `out` and, where it is not null, `copy`.
template <bool kSoften, bool kMean>
__device__ inline void join_rows(const GroupRows &rows, const float *inverse, float *out, float *copy) {
  const Joiner<kSoften, kMean> join{rows, inverse, 1.0f / static_cast<float>(rows.group)};
  each_four(
      rows.count,
      [&](std::uint32_t i) {
        float4 all;
#pragma unroll 4
        for (std::uint32_t g = 0; g < rows.group; ++g) {
          const float4 raw = four_at(rows.row(g) + i);
          join.add(g, raw.x, &all.x), join.add(g, raw.y, &all.y), join.add(g, raw.z, &all.z), join.add(g, raw.w, &all.w);
        }
        all = make_float4(join.end(all.x), join.end(all.y), join.end(all.z), join.end(all.w));
        put_four(out + i, all);
        if (copy != nullptr) put_four(copy + i, all);
      },
      [&](std::uint32_t i) {
        float all = 0.0f;
        for (std::uint32_t g = 0; g < rows.group; ++g) join.add(g, rows.row(g)[i], &all);
        out[i] = join.end(all);
        if (copy != nullptr) copy[i] = join.end(all);
      });
  __syncthreads();
}

// The same for four query heads and no more columns than four for each thread, which holds its own from first to last.
struct HeldRows {
  float v[4][4];
  std::uint32_t first, count;

  __device__ HeldRows(const GroupRows &from) : first(4 * threadIdx.x), count(from.count) {
#pragma unroll
    for (std::uint32_t g = 0; g < 4; ++g) {
#pragma unroll
      for (std::uint32_t i = 0; i < 4; ++i) v[g][i] = -infinity();
      if (g >= from.group) continue;
      if (first + 4 <= count) {
        load4(from.row(g) + first, v[g]);
      } else {
#pragma unroll
        for (std::uint32_t i = 0; i < 4; ++i) v[g][i] = first + i < count ? from.row(g)[first + i] : -infinity();
      }
    }
  }
  __device__ void put(float *row, const float (&x)[4]) const {
    if (first < count) put_four(row + first, make_float4(x[0], x[1], x[2], x[3]));
  }
};

// Each warp finds the maxima of all warps by itself.
__device__ inline void soften_held(const GroupRows &rows, HeldRows *held) {
  __shared__ float of_warp[4][kWarpThreads];
  const std::uint32_t warps = blockDim.x / kWarpThreads, warp = threadIdx.x / kWarpThreads, lane = threadIdx.x % kWarpThreads;
  float max[4];
#pragma unroll
  for (std::uint32_t g = 0; g < 4; ++g) {
    max[g] = larger_of_warp(larger(larger(held->v[g][0], held->v[g][1]), larger(held->v[g][2], held->v[g][3])));
  }
#pragma unroll
  for (std::uint32_t g = 0; g < 4; ++g) {
    if (lane == 0) of_warp[g][warp] = max[g];
  }
  __syncthreads();
#pragma unroll
  for (std::uint32_t g = 0; g < 4; ++g) max[g] = larger_of_warp(lane < warps ? of_warp[g][lane] : -infinity());
#pragma unroll
  for (std::uint32_t g = 0; g < 4; ++g) {
    if (g >= rows.group) continue;
#pragma unroll
    for (std::uint32_t i = 0; i < 4; ++i) held->v[g][i] = exp1(held->v[g][i] - max[g]);
    held->put(rows.row(g), held->v[g]);
  }
  __syncthreads();
}

__device__ inline void find_inverses(const GroupRows &rows, float *inverse) {
  __shared__ float lanes[4][16];
  if (threadIdx.x < rows.group * 16) {
    lanes[threadIdx.x / 16][threadIdx.x % 16] = lane_sum(rows.row(threadIdx.x / 16), threadIdx.x % 16, rows.count);
  }
  __syncthreads();
  if (threadIdx.x < rows.group) inverse[threadIdx.x] = 1.0f / tree16(lanes[threadIdx.x]);
  __syncthreads();
}

template <bool kMean>
__device__ inline void reduce_held(const GroupRows &from, const GroupRows &rows, float *inverse) {
  HeldRows held(from);
  soften_held(rows, &held);
  find_inverses(rows, inverse);
  const Joiner<true, kMean> join{rows, inverse, 1.0f / static_cast<float>(rows.group)};
  float all[4];
#pragma unroll
  for (std::uint32_t g = 0; g < 4; ++g) {
    if (g >= rows.group) continue;
#pragma unroll
    for (std::uint32_t i = 0; i < 4; ++i) join.add(g, held.v[g][i], &all[i]);
  }
#pragma unroll
  for (std::uint32_t i = 0; i < 4; ++i) all[i] = join.end(all[i]);
  held.put(rows.scores, all);
  if (held.first + 4 <= rows.count) held.put(from.scores, all);
  for (std::uint32_t i = 0; i < 4 && held.first + 4 > rows.count; ++i) {
    if (held.first + i < rows.count) from.scores[held.first + i] = all[i];
  }
  __syncthreads();
}

// The scores of the group's query heads, in `from`, as one row in place of the first. Where `rows` lies in shared memory the
// row is there too: returns where it is near.
__device__ inline float *reduce_group(const Settings &s, ScoreKind kind, const GroupRows &from, const GroupRows &rows) {
  __shared__ float inverse[KVSIFT_MAX_GROUP];
  const bool mean = s.c.grouping == KVSIFT_GROUP_MEAN;
  float *copy = from.scores == rows.scores ? nullptr : from.scores;
  if (kind == ScoreKind::kLog && copy != nullptr && rows.group <= 4 && rows.count <= 4 * blockDim.x) {
    mean ? reduce_held<true>(from, rows, inverse) : reduce_held<false>(from, rows, inverse);
  } else if (kind == ScoreKind::kLog) {
    soften_group(from, rows, inverse);
    mean ? join_rows<true, true>(rows, inverse, rows.scores, copy) : join_rows<true, false>(rows, inverse, rows.scores, copy);
  } else {
    mean ? join_rows<false, true>(from, inverse, rows.scores, copy) : join_rows<false, false>(from, inverse, rows.scores, copy);
  }
  return rows.scores;
}

}  // namespace
}  // namespace kvsift
