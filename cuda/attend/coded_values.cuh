// Weighted sums of int8 pages' values, as coded_values_impl.h has them: weights become whole numbers, whose sums are exact in
// any order.
#pragma once

#include "cuda/attend/chunk.cuh"

namespace kvsift {
namespace {

// An element of such a page, where an int8 cache's elements are weighed in floats.
struct PageCode {
  std::int8_t value;
};

// Where a row of kChunk weights was, its codes are.
__device__ inline const std::int16_t *codes_of(const float *weights) { return reinterpret_cast<const std::int16_t *>(weights); }

// One head's weights times their rows' scales, by a warp; zeros behind them. Returns the unit.
__device__ inline float code_weights(float *row, const float *scales, std::uint32_t count) {
  constexpr std::uint32_t kEach = kChunk / kWarpThreads;
  const std::uint32_t lane = threadIdx.x % kWarpThreads;
  float x[kEach], largest = 0.0f;
#pragma unroll
  for (std::uint32_t n = 0; n < kEach; ++n) {
    const std::uint32_t i = n * kWarpThreads + lane;
    x[n] = i < count ? row[i] * scales[i] : 0.0f;
    largest = x[n] > largest ? x[n] : largest;
  }
#pragma unroll
  for (unsigned step = 16; step > 0; step /= 2) {
    const float other = __shfl_xor_sync(kAllLanes, largest, step);
    largest = other > largest ? other : largest;
  }
  const float unit = __fdiv_rn(largest, kLargestWeight);
  const float inverse = unit < 0x1p-120f ? 0.0f : __fdiv_rn(1.0f, unit);
  __syncwarp();
  auto *code = reinterpret_cast<std::int16_t *>(row);
#pragma unroll
  for (std::uint32_t n = 0; n < kEach; ++n) {
    const float rounded = (x[n] * inverse + kRound) - kRound;
    code[n * kWarpThreads + lane] = static_cast<std::int16_t>(static_cast<int>(rounded));
  }
  return unit;
}

// All threads of the block must call it.
__device__ inline void code_chunk(float *weights, std::uint32_t heads, std::uint32_t count, ChunkShared *shared) {
  for (std::uint32_t g = threadIdx.x / kWarpThreads; g < heads; g += kAttendThreads / kWarpThreads) {
    const float unit = code_weights(weights + g * kChunk, shared->value_scales, count);
    if (threadIdx.x % kWarpThreads == 0) shared->weight_units[g] = unit;
  }
  __syncthreads();
}

// Two columns of two rows, side by side.
__device__ inline int two_rows(const PageCode *a, const PageCode *b) {
  const unsigned of_a = *reinterpret_cast<const std::uint16_t *>(a), of_b = *reinterpret_cast<const std::uint16_t *>(b);
  return static_cast<int>(__byte_perm(of_a, of_b, 0x5140));
}

// Four rows `pitch` apart in two columns, times one head's codes.
struct FourRows {
  int first, second;  // two rows each: both of a column, then both of the next

  __device__ FourRows(const PageCode *row, std::uint32_t pitch)
      : first(two_rows(row, row + pitch)), second(two_rows(row + 2 * pitch, row + 3 * pitch)) {}

  __device__ void add(const std::int16_t *code, int (&acc)[2]) const {
    const uint2 codes = *reinterpret_cast<const uint2 *>(code);
    const int a = static_cast<int>(codes.x), b = static_cast<int>(codes.y);
    acc[0] = __dp2a_lo(b, second, __dp2a_lo(a, first, acc[0]));
    acc[1] = __dp2a_hi(b, second, __dp2a_hi(a, first, acc[1]));
  }
};
struct OneRow {
  int value[2];

  __device__ explicit OneRow(const PageCode *row) : value{row[0].value, row[1].value} {}

  __device__ void add(const std::int16_t *code, int (&acc)[2]) const {
    acc[0] += *code * value[0];
    acc[1] += *code * value[1];
  }
};

}  // namespace
}  // namespace kvsift
