// Products on tensor cores, and the loads that give each lane of a warp its part of them. All lanes must call these.
//
// A product adds 16 terms for each of 16 rows of the left side and 8 columns of the right side. A lane holds, of the left side,
// terms 2 (lane % 4) and the next of row lane / 4 and of that + 8, then the same of terms 8 higher; of the right side those terms
// of column lane / 4; of the sums columns 2 (lane % 4) and the next of row lane / 4, then of that + 8.
#pragma once

#include <type_traits>

#include "cuda/core/device.cuh"

namespace kvsift {
namespace {

// The two numbers as elements of T side by side, the first in the low half.
template <class T>
__device__ inline std::uint32_t round_pair(float low, float high);
template <>
__device__ inline std::uint32_t round_pair<F16>(float low, float high) {
#ifdef KVSIFT_EMULATED
  return half_of_float(low) | static_cast<std::uint32_t>(half_of_float(high)) << 16;
#else
  std::uint32_t pair;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
#endif
}
template <>
__device__ inline std::uint32_t round_pair<BF16>(float low, float high) {
#ifdef KVSIFT_EMULATED
  return bfloat_of_float(low) | static_cast<std::uint32_t>(bfloat_of_float(high)) << 16;
#else
  std::uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
#endif
}

#ifdef KVSIFT_EMULATED
template <class T>
inline float half_at(std::uint32_t pair, std::uint32_t i) {
  return widen(T{static_cast<std::uint16_t>(pair >> 16 * i)});
}
#endif

template <class T>
__device__ inline void add_product(float (&sum)[4], const std::uint32_t (&left)[4], uint2 right) {
#ifdef KVSIFT_EMULATED
  __shared__ std::uint32_t given[1024][6];
  const std::uint32_t words[6] = {left[0], left[1], left[2], left[3], right.x, right.y};
  std::memcpy(given[threadIdx.x], words, sizeof words);
  __syncwarp();
  const std::uint32_t lane = threadIdx.x % kWarpThreads, warp = threadIdx.x - lane;
  for (std::uint32_t e = 0; e < 4; ++e) {
    const std::uint32_t row = warp + lane / 4 * 4, column = warp + (lane % 4 * 2 + e % 2) * 4;
    for (std::uint32_t term = 0; term < 16; ++term) {
      const std::uint32_t of = term % 8 / 2, high = term / 8;
      const float a = half_at<T>(given[row + of][e / 2 + 2 * high], term % 2), b = half_at<T>(given[column + of][4 + high], term % 2);
      sum[e] = __fmaf_rn(a, b, sum[e]);
    }
  }
  __syncwarp();
#else
  if constexpr (std::is_same<T, F16>::value) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right.x), "r"(right.y));
  } else {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right.x), "r"(right.y));
  }
#endif
}

// A left side of 16 rows in shared memory, `pitch` bytes apart, whose first 16 elements begin at `rows`: a multiple of 16 bytes.
__device__ inline void load_left(const std::uint8_t *rows, std::uint32_t pitch, std::uint32_t (&left)[4]) {
  const std::uint32_t lane = threadIdx.x % kWarpThreads;
#ifdef KVSIFT_EMULATED
  for (std::uint32_t i = 0; i < 4; ++i) std::memcpy(&left[i], rows + (lane / 4 + i % 2 * 8) * pitch + i / 2 * 16 + lane % 4 * 4, 4);
#else
  const auto at = static_cast<unsigned>(__cvta_generic_to_shared(rows + lane % 16 * pitch + lane / 16 * 16));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(left[0]), "=r"(left[1]), "=r"(left[2]), "=r"(left[3]) : "r"(at) : "memory");
#endif
}

// The same of columns: the rows in memory are the terms, and elements beside each other the left side's rows.
__device__ inline void load_left_turned(const std::uint8_t *rows, std::uint32_t pitch, std::uint32_t (&left)[4]) {
  const std::uint32_t lane = threadIdx.x % kWarpThreads;
#ifdef KVSIFT_EMULATED
  for (std::uint32_t i = 0; i < 4; ++i) {
    for (std::uint32_t k = 0; k < 2; ++k) {
      const std::uint32_t term = lane % 4 * 2 + k + i / 2 * 8, row = lane / 4 + i % 2 * 8;
      std::memcpy(reinterpret_cast<char *>(&left[i]) + 2 * k, rows + term * pitch + row * 2, 2);
    }
  }
#else
  const auto at =
      static_cast<unsigned>(__cvta_generic_to_shared(rows + (lane % 8 + lane / 16 * 8) * pitch + lane / 8 % 2 * 16));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(left[0]), "=r"(left[1]), "=r"(left[2]), "=r"(left[3]) : "r"(at) : "memory");
#endif
}

}  // namespace
}  // namespace kvsift
