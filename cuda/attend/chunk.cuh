// One chunk in shared memory: its tokens, their logits, and the softmax over them.
#pragma once

#include "cuda/attend/plan.cuh"
#include "cuda/policy/rows.cuh"

namespace kvsift {
namespace {

// In dynamic shared memory; rows for a multiple of four query heads.
struct ChunkRows {
  float *queries;       // [heads][dim16]
  float *logits;        // [heads][kChunk]; soften makes them exp(logit - max)
  ChunkShared *shared;
  std::uint8_t *keys;   // [kChunk] of key_pitch bytes, where that is not 0
  std::uint32_t key_pitch;
  std::uint8_t *stage;  // [2][stage_rows][bytes of a value row]
};

__device__ inline ChunkRows chunk_rows(char *shared, const Settings &s, std::uint32_t element, bool near_keys) {
  const ChunkRoom room = chunk_room(s, element, near_keys);
  ChunkRows rows;
  rows.queries = reinterpret_cast<float *>(shared);
  rows.logits = reinterpret_cast<float *>(shared + room.logits);
  rows.shared = reinterpret_cast<ChunkShared *>(shared + room.shared);
  rows.keys = reinterpret_cast<std::uint8_t *>(shared + room.keys);
  rows.key_pitch = room.key_pitch;
  rows.stage = reinterpret_cast<std::uint8_t *>(shared + room.stage);
  return rows;
}

// The token at place `at` of the list's kept tokens, where stretch [starts[0], end) of `count` ranges holds it.
__device__ inline std::uint32_t token_at(const ChunkShared &shared, std::uint32_t count, std::uint32_t at) {
  std::uint32_t low = 0, high = count;
  while (high - low > 1) {
    const std::uint32_t middle = (low + high) / 2;
    if (shared.starts[middle] <= at) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return shared.begins[low] + (at - shared.starts[low]);
}

// Fills shared->tokens and `before` with kept tokens [first, first + count) of the list, at most kChunk.
__device__ inline void find_tokens(const AttendPlan &plan, std::uint32_t list, std::uint32_t first, std::uint32_t count,
                                   ChunkShared *shared) {
  const std::uint32_t own = first + threadIdx.x;
  if (plan.everything) {
    if (threadIdx.x < kChunk) shared->tokens[threadIdx.x] = own;
    if (threadIdx.x == 0) shared->before = first - 1;
    __syncthreads();
    return;
  }
  const KeptRanges ranges = plan.ranges(list);
  const std::uint32_t range_count = ranges.count;
  std::uint32_t reached = 0;
  for (std::uint32_t at = 0; at < range_count && reached < first + count; at += kChunk) {
    const std::uint32_t r = at + threadIdx.x, here = range_count - at < kChunk ? range_count - at : kChunk;
    const kvsift_range range = threadIdx.x < here ? ranges.ranges[r] : kvsift_range{0, 0};
    std::uint32_t total;
    const std::uint32_t start = reached + sum_before(range.end - range.begin, &total);
    if (threadIdx.x < here) {
      shared->starts[threadIdx.x] = start;
      shared->begins[threadIdx.x] = range.begin;
    }
    __syncthreads();
    const std::uint32_t end = reached + total;
    if (threadIdx.x < count && own >= reached && own < end) shared->tokens[threadIdx.x] = token_at(*shared, here, own);
    if (threadIdx.x == 0 && first > 0 && first - 1 >= reached && first - 1 < end) {
      shared->before = token_at(*shared, here, first - 1);
    }
    reached = end;
    __syncthreads();
  }
}

// Where the chunk's rows lie.
__device__ inline void find_rows(const AttendPlan &plan, std::uint32_t count, ChunkShared *shared) {
  if (threadIdx.x >= kChunk) return;
  const CacheArgs &cache = plan.args.cache;
  const std::uint32_t head = plan.head.kv_head, i = threadIdx.x < count ? threadIdx.x : 0;
  PageTable table{cache.table, cache.page_shift};
  if (table.entries != nullptr) table.entries += std::uint64_t{cache.table_stride} * head;
  const std::uint32_t token = shared->tokens[i];
  if (table.entries != nullptr && table.entries[token >> table.shift] < 0) report(plan.args.call, kFaultTable, head);
  const DeviceRow key = row_of_token(cache.keys, table, token, head);
  const DeviceRow value = row_of_token(cache.values, table, token, head);
  shared->keys[threadIdx.x] = key.data;
  shared->key_scales[threadIdx.x] = key.scale;
  shared->values[threadIdx.x] = value.data;
  shared->value_scales[threadIdx.x] = value.scale;
}

// One head's row of logits to weights, by a warp. kWhole: the chunk is full.
template <bool kWhole>
__device__ inline void soften_row(float *row, std::uint32_t count, float *of_max, float *of_sum) {
  constexpr std::uint32_t kEach = kChunk / kWarpThreads;
  const std::uint32_t lane = threadIdx.x % kWarpThreads;
  float x[kEach], max = -infinity(), sum = 0.0f;
#pragma unroll
  for (std::uint32_t n = 0; n < kEach; ++n) {
    const std::uint32_t i = n * kWarpThreads + lane;
    x[n] = kWhole || i < count ? row[i] : -infinity();
    max = x[n] > max ? x[n] : max;
  }
#pragma unroll
  for (unsigned step = 16; step > 0; step /= 2) {
    const float other = __shfl_xor_sync(kAllLanes, max, step);
    max = other > max ? other : max;
  }
  const bool hidden = !(max > -infinity());
#pragma unroll
  for (std::uint32_t n = 0; n < kEach; ++n) {
    const std::uint32_t i = n * kWarpThreads + lane;
    x[n] = hidden ? 0.0f : exp1(x[n] - max);
    if (kWhole || i < count) row[i] = x[n];
  }
  __syncwarp();
  // Both halves of the warp add the same.
#pragma unroll
  for (std::uint32_t n = 0; n < kChunk / 16; ++n) {
    const std::uint32_t i = n * 16 + lane % 16;
    if (kWhole || i < count) sum = sum + row[i];
  }
#pragma unroll
  for (unsigned step = 8; step > 0; step /= 2) sum = sum + __shfl_xor_sync(kAllLanes, sum, step);
  if (lane != 0) return;
  *of_max = max;
  *of_sum = sum;
}

// Maximum and exp(logit - max) of `heads` rows of `count` logits, sums with lane i adding elements i, i + 16 ...; a warp
// for each head. A row of minus infinity becomes zeros.
__device__ inline void soften(float *logits, std::uint32_t heads, std::uint32_t count, ChunkShared *shared) {
  for (std::uint32_t g = threadIdx.x / kWarpThreads; g < heads; g += kAttendThreads / kWarpThreads) {
    if (count == kChunk) {
      soften_row<true>(logits + g * kChunk, count, &shared->max[g], &shared->sum[g]);
    } else {
      soften_row<false>(logits + g * kChunk, count, &shared->max[g], &shared->sum[g]);
    }
  }
  __syncthreads();
}

}  // namespace
}  // namespace kvsift
