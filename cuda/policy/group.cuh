// Scores of a group's query heads into those of their KV head, as reduce_group of policy/group.h. Worked on by one block.
#pragma once

#include "cuda/core/block.cuh"
#include "cuda/core/copy.cuh"
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

// use(i) for the thread's fours of places below `count`, then one(i) for the places that are left. What is far away is asked for
// `kTurns` at a time; near, one does, and the code is short: a block that runs it once waits for its instructions too.
template <int kTurns, class Use, class One>
__device__ inline void each_four(std::uint32_t count, Use use, One one) {
  const std::uint32_t fours = count / 4, turns = (fours + blockDim.x - 1) / blockDim.x, left = count % 4;
#pragma unroll kTurns
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
template <bool kNear>
__device__ inline void find_maxima(const GroupRows &rows, float *max) {
  __shared__ float of_warp[KVSIFT_MAX_GROUP][kWarpThreads];
  const std::uint32_t warps = blockDim.x / kWarpThreads, warp = threadIdx.x / kWarpThreads, lane = threadIdx.x % kWarpThreads;
#pragma unroll 1
  for (std::uint32_t g = 0; g < rows.group; ++g) {
    const float *row = rows.row(g);
    float x = -infinity();
    each_four<kNear ? 1 : 4>(
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

// Rows of scratch into shared memory, all at once. Each thread waits for the places that each_four gives it.
__device__ inline void bring_rows(const GroupRows &from, const GroupRows &to) {
  each_four<1>(
      from.count,
      [&](std::uint32_t i) {
#pragma unroll 1
        for (std::uint32_t g = 0; g < from.group; ++g) copy_async(to.row(g) + i, from.row(g) + i);
      },
      [&](std::uint32_t i) {
#pragma unroll 1
        for (std::uint32_t g = 0; g < from.group; ++g) to.row(g)[i] = from.row(g)[i];
      });
  end_copies();
  wait_copies<0>();
}

// exp(x - max) in place.
template <bool kNear>
__device__ inline void exponentiate(const GroupRows &rows, const float *max) {
#pragma unroll 1
  for (std::uint32_t g = 0; g < rows.group; ++g) {
    float *row = rows.row(g);
    const float most = max[g];
    each_four<kNear ? 1 : 2>(
        rows.count,
        [&](std::uint32_t i) {
          const float4 v = four_at(row + i);
          put_four(row + i, make_float4(exp1(v.x - most), exp1(v.y - most), exp1(v.z - most), exp1(v.w - most)));
        },
        [&](std::uint32_t i) { row[i] = exp1(row[i] - most); });
  }
  __syncthreads();
}

// The same, and one over each row's sum.
template <bool kNear>
__device__ inline void soften_group(const GroupRows &rows, float *inverse) {
  __shared__ float max[KVSIFT_MAX_GROUP], lanes[KVSIFT_MAX_GROUP][16];
  find_maxima<kNear>(rows, max);
  exponentiate<kNear>(rows, max);
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
template <bool kNear, bool kSoften, bool kMean>
__device__ inline void join_rows(const GroupRows &rows, const float *inverse, float *out, float *copy) {
  const Joiner<kSoften, kMean> join{rows, inverse, 1.0f / static_cast<float>(rows.group)};
  each_four<1>(
      rows.count,
      [&](std::uint32_t i) {
        float4 all;
#pragma unroll kNear ? 1 : 4
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
#pragma unroll 1
        for (std::uint32_t g = 0; g < rows.group; ++g) join.add(g, rows.row(g)[i], &all);
        out[i] = join.end(all);
        if (copy != nullptr) copy[i] = join.end(all);
      });
  __syncthreads();
}

template <bool kNear>
__device__ inline void reduce_rows(const Settings &s, ScoreKind kind, const GroupRows &rows, float *copy) {
  __shared__ float inverse[KVSIFT_MAX_GROUP];
  const bool mean = s.c.grouping == KVSIFT_GROUP_MEAN;
  if (kind == ScoreKind::kLog) {
    soften_group<kNear>(rows, inverse);
    mean ? join_rows<kNear, true, true>(rows, inverse, rows.scores, copy)
         : join_rows<kNear, true, false>(rows, inverse, rows.scores, copy);
  } else {
    mean ? join_rows<kNear, false, true>(rows, inverse, rows.scores, copy)
         : join_rows<kNear, false, false>(rows, inverse, rows.scores, copy);
  }
}

// The scores of the group's query heads, in `from`, as one row in place of the first. Where `rows` lies in shared memory the
// row is there too: returns where it is near.
__device__ inline float *reduce_group(const Settings &s, ScoreKind kind, const GroupRows &from, const GroupRows &rows) {
  if (from.scores == rows.scores) {
    reduce_rows<false>(s, kind, rows, nullptr);
  } else {
    bring_rows(from, rows);
    reduce_rows<true>(s, kind, rows, from.scores);
  }
  return rows.scores;
}

}  // namespace
}  // namespace kvsift
