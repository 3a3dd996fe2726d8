// 16 x 16 transposition for each vector class; included per instruction set.
#pragma once

#include "kernels/element.h"

namespace kvsift {
namespace {

// Lane c of in[r] becomes lane r of out[c].
template <class V>
inline void transpose16(const V *in, V *out) {
  float rows[kLanes][kLanes], columns[kLanes];
  for (std::uint32_t r = 0; r < kLanes; ++r) store(rows[r], in[r]);
  for (std::uint32_t c = 0; c < kLanes; ++c) {
    for (std::uint32_t r = 0; r < kLanes; ++r) columns[r] = rows[r][c];
    out[c] = V::load(columns);
  }
}

#if defined(__AVX512F__)
// Each round pairs rows twice as far apart.
template <>
inline void transpose16<Avx512>(const Avx512 *in, Avx512 *out) {
  __m512 a[16], b[16];
  for (int i = 0; i < 16; i += 2) {
    a[i] = _mm512_unpacklo_ps(in[i].v, in[i + 1].v);
    a[i + 1] = _mm512_unpackhi_ps(in[i].v, in[i + 1].v);
  }
  for (int i = 0; i < 16; i += 4) {
    b[i] = _mm512_shuffle_ps(a[i], a[i + 2], 0x44);
    b[i + 1] = _mm512_shuffle_ps(a[i], a[i + 2], 0xee);
    b[i + 2] = _mm512_shuffle_ps(a[i + 1], a[i + 3], 0x44);
    b[i + 3] = _mm512_shuffle_ps(a[i + 1], a[i + 3], 0xee);
  }
  // b[4 q + c] holds, in its quarter p, coordinate 4 p + c of rows 4 q to 4 q + 3.
  for (int c = 0; c < 4; ++c) {
    const __m512 low02 = _mm512_shuffle_f32x4(b[c], b[4 + c], 0x88);
    const __m512 low13 = _mm512_shuffle_f32x4(b[c], b[4 + c], 0xdd);
    const __m512 high02 = _mm512_shuffle_f32x4(b[8 + c], b[12 + c], 0x88);
    const __m512 high13 = _mm512_shuffle_f32x4(b[8 + c], b[12 + c], 0xdd);
    out[c].v = _mm512_shuffle_f32x4(low02, high02, 0x88);
    out[8 + c].v = _mm512_shuffle_f32x4(low02, high02, 0xdd);
    out[4 + c].v = _mm512_shuffle_f32x4(low13, high13, 0x88);
    out[12 + c].v = _mm512_shuffle_f32x4(low13, high13, 0xdd);
  }
}
#elif defined(__AVX2__)
inline void transpose8(const __m256 *in, __m256 *out) {
  __m256 a[8], b[8];
  for (int i = 0; i < 8; i += 2) {
    a[i] = _mm256_unpacklo_ps(in[i], in[i + 1]);
    a[i + 1] = _mm256_unpackhi_ps(in[i], in[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    b[i] = _mm256_shuffle_ps(a[i], a[i + 2], 0x44);
    b[i + 1] = _mm256_shuffle_ps(a[i], a[i + 2], 0xee);
    b[i + 2] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0x44);
    b[i + 3] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0xee);
  }
  for (int i = 0; i < 4; ++i) {
    out[i] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x20);
    out[i + 4] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x31);
  }
}

template <>
inline void transpose16<Avx2>(const Avx2 *in, Avx2 *out) {
  for (int half = 0; half < 16; half += 8) {
    __m256 lo[8], hi[8], columns[8];
    for (int r = 0; r < 8; ++r) {
      lo[r] = in[half + r].lo;
      hi[r] = in[half + r].hi;
    }
    transpose8(lo, columns);
    for (int c = 0; c < 8; ++c) (half == 0 ? out[c].lo : out[c].hi) = columns[c];
    transpose8(hi, columns);
    for (int c = 0; c < 8; ++c) (half == 0 ? out[8 + c].lo : out[8 + c].hi) = columns[c];
  }
}
#endif

}  // namespace
}  // namespace kvsift
