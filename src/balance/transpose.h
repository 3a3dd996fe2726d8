// 16 x 16 transposition for each vector class; included per instruction set.
#pragma once

#include "kernels/element.h"

namespace kvsift {
namespace {

// out[c][r] = lane c of in[r]
template <class V>
inline void transpose16(const V *in, float *out) {
  float rows[kLanes][kLanes];
  for (std::uint32_t r = 0; r < kLanes; ++r) store(rows[r], in[r]);
  for (std::uint32_t c = 0; c < kLanes; ++c)
    for (std::uint32_t r = 0; r < kLanes; ++r) out[c * kLanes + r] = rows[r][c];
}

#if defined(__AVX2__)
// Eight rows of eight, the way the 256-bit shuffles pair them up.
inline void transpose8(const __m256 *in, float *out, std::uint32_t stride) {
  __m256 a[8], b[8];
  for (int i = 0; i < 4; ++i) {
    a[2 * i] = _mm256_unpacklo_ps(in[2 * i], in[2 * i + 1]);
    a[2 * i + 1] = _mm256_unpackhi_ps(in[2 * i], in[2 * i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    b[i] = _mm256_shuffle_ps(a[i], a[i + 2], 0x44);
    b[i + 1] = _mm256_shuffle_ps(a[i], a[i + 2], 0xee);
    b[i + 2] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0x44);
    b[i + 3] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0xee);
  }
  for (int i = 0; i < 4; ++i) {
    _mm256_storeu_ps(out + i * stride, _mm256_permute2f128_ps(b[i], b[i + 4], 0x20));
    _mm256_storeu_ps(out + (i + 4) * stride, _mm256_permute2f128_ps(b[i], b[i + 4], 0x31));
  }
}
#endif

#if defined(__AVX512F__)
template <>
inline void transpose16<Avx512>(const Avx512 *in, float *out) {
  for (std::uint32_t half = 0; half < 2; ++half) {
    __m256 lo[8], hi[8];
    for (std::uint32_t r = 0; r < 8; ++r) {
      const __m512 row = in[half * 8 + r].v;
      lo[r] = _mm512_castps512_ps256(row);
      hi[r] = _mm512_extractf32x8_ps(row, 1);
    }
    transpose8(lo, out + half * 8, kLanes);
    transpose8(hi, out + 8 * kLanes + half * 8, kLanes);
  }
}
#elif defined(__AVX2__)
template <>
inline void transpose16<Avx2>(const Avx2 *in, float *out) {
  for (std::uint32_t half = 0; half < 2; ++half) {
    __m256 lo[8], hi[8];
    for (std::uint32_t r = 0; r < 8; ++r) {
      lo[r] = in[half * 8 + r].lo;
      hi[r] = in[half * 8 + r].hi;
    }
    transpose8(lo, out + half * 8, kLanes);
    transpose8(hi, out + 8 * kLanes + half * 8, kLanes);
  }
}
#endif

}  // namespace
}  // namespace kvsift
